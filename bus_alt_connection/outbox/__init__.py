# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""What sends the NOTIFY of commits: the commit itself, or a thread for what has to wait."""
