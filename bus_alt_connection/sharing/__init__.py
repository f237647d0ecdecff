# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""One listener for all processes of a machine: one of them leads, the others follow."""
