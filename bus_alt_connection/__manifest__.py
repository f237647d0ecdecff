# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
{
    "name": "Bus Alternative Connection",
    "summary": "Odoo behind a connection pooler: LISTEN goes straight to PostgreSQL",
    "version": "1.1.0",
    "author": "bus_alt_connection contributors",
    "license": "AGPL-3",
    "development_status": "Production/Stable",
    "category": "Hidden",
    "depends": ["bus"],
    "images": ["static/description/with.png"],
    "post_load": "post_load",
}
