# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""The pages for load balancers and Prometheus."""
