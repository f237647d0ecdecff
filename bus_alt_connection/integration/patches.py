# License AGPL-3.0 or later (https://www.gnu.org/licenses/agpl).
"""How the functions in the table of Odoo's functions are replaced."""

from __future__ import annotations

import functools
import inspect
import logging
from typing import Callable

import odoo

from ..config.parameters import Settings
from ..pages import metrics, ready
from ..pages.middleware import Middleware
from . import bus, cron, database_manager, odoo_functions, queue_job, websockets_16
from .resolve import Resolution, consequence, function_of, owner_of, resolve
from .runtime import Runtime

_logger = logging.getLogger("odoo.addons.bus_alt_connection.hooks")


NOT_REPLACED = "bus_alt_connection cannot replace {0.module}.{0.function} ({0.name}): {1!r}: {2}"


def install(settings: Settings, version: str) -> None:
    """Send what needs a session of its own directly to PostgreSQL.

    A function that cannot be replaced stays as it is, with one line that says what it means.

    :param version: the addon's
    """
    resolution = resolve()
    runtime = Runtime(settings, resolution, version)
    for line in resolution.missing:
        _logger.error("%s", line)
    for line in resolution.unloadable:
        _logger.warning("%s", line)
    # the gevent process, which has no runner of queue_job, would log it a second time
    if not odoo.evented:
        _describe_queue_job(settings, resolution)
    replacements = list_replacements(runtime)
    for row in resolution.found.values():
        if isinstance(row, odoo_functions.ReplaceTarget):
            try:
                replace(row, replacements[row.name])
            except Exception as error:  # another addon may have put anything there
                _logger.error("%s", NOT_REPLACED.format(row, error, consequence(row)))


def _describe_queue_job(settings: Settings, resolution: Resolution) -> None:
    try:
        for line in queue_job.describe_target(settings, resolution):
            _logger.info("%s", line)
    except Exception as error:
        _logger.warning("where queue_job's runner connects is not known: %r", error)


def replace(row: odoo_functions.Target, replacement: Callable) -> None:
    """Let a function be replaced by one that is given the original, then its arguments."""
    owner, original = owner_of(row), function_of(row)
    name = row.function.rpartition(".")[2]

    @functools.wraps(original)
    def replaced(*args, **kwargs):
        return replacement(original, *args, **kwargs)

    # a classmethod: getattr has bound it, so the replacement must not be bound again
    is_bound = inspect.isclass(owner) and inspect.ismethod(original)
    setattr(owner, name, staticmethod(replaced) if is_bound else replaced)


def list_replacements(runtime: Runtime) -> dict[str, Callable]:
    """Return what each function is replaced by: it is given the original, then its arguments."""
    settings = runtime.settings
    tools = database_manager.Tools(settings, runtime.list_databases)
    databases = database_manager.DatabaseList(settings)
    pages = {ready.PATH: functools.partial(ready.respond, runtime)}
    if settings.metrics_enabled:
        pages[metrics.PATH] = functools.partial(metrics.respond, runtime)
    start_bus = functools.partial(bus.start_bus, runtime.targets.get(odoo_functions.BUS_LOOP))
    return {
        odoo_functions.CONNECTIONS: runtime.connect,
        odoo_functions.STATEMENTS: runtime.execute,
        odoo_functions.MODULE_UPDATES: runtime.module_loading.load_modules,
        odoo_functions.REGISTRY_LOCKS: runtime.module_loading.new_registry,
        odoo_functions.REQUESTS: Middleware(pages, start_bus),
        odoo_functions.WEBSOCKETS: websockets_16.wake,
        odoo_functions.CRON_THREAD_RESTART: cron.run_forever,
        odoo_functions.RESTART: runtime.reexec,
        odoo_functions.DATABASES: databases,
        odoo_functions.CRON_DATABASES: databases,
        odoo_functions.TOOLS: tools.environ,
        odoo_functions.MANAGER_TOOLS: tools.environ,
        odoo_functions.OTHER_TOOLS: tools.environ,
        odoo_functions.BACKUP: tools.dump,
        odoo_functions.RESTORE: tools.restore,
        odoo_functions.QUEUE_JOB: functools.partial(queue_job.connection_info, settings),
    }
