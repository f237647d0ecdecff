# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""What the operator set, as parameters of libpq, and how long the addon waits for what."""
