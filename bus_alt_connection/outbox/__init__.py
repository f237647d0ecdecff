# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The thread of a process that sends the NOTIFY of commits."""
