# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""Where functions of Odoo are replaced: with ``cli``, the only importer of Odoo."""
