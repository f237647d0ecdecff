# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The checks behind the command ``odoo-bin buscheck``."""
