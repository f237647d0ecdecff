# The official image of Odoo with bus_alt_connection:
#   docker build --tag odoo-with-bus_alt_connection .
# For another series: --build-arg ODOO=18.0 --build-arg SERVER_WIDE=base,web
ARG ODOO=19.0
FROM odoo:${ODOO}
ARG SERVER_WIDE=base,rpc,web

# among Odoo's own addons: found whatever addons_path says. /mnt/extra-addons is a volume of the
# image, which would keep an old copy.
COPY bus_alt_connection /usr/lib/python3/dist-packages/odoo/addons/bus_alt_connection

# counts unless you mount an odoo.conf of your own
RUN echo "server_wide_modules = ${SERVER_WIDE},bus_alt_connection" >>/etc/odoo/odoo.conf

# not the start script of the base image: it puts the password on the command line
ENTRYPOINT ["odoo"]
CMD []
