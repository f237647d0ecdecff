# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Sessions with PostgreSQL in which every wait has a deadline and can be ended."""
