"""Real servers and clients: PostgreSQL, PgBouncer, Odoo, a bus client.

The tests, the demo and the benchmarks start all their parts from here.
"""
