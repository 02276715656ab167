"""What every actuator's configuration has in common."""

from hil.wire import Name
from hil.yamlfile import Section


class ActuatorConfig(Section, frozen=True, kw_only=True):
    """An actuator's name, as commands address it."""

    name: Name
