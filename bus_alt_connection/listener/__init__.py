# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The thread of a process that receives NOTIFY, and what Odoo waits on instead of a connection."""
