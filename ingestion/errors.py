"""What can go wrong, by what the caller should do about it (the exit statuses of DESIGN.md section 3)."""


class VitrinaError(Exception):
    """Anything that stops a command with a message for a person. Exit status 1."""

    exit_status = 1


class UsageError(VitrinaError):
    """The command, its dates or its settings are wrong; asking again will not help. Exit status 2."""

    exit_status = 2


class NotYetError(VitrinaError):
    """The source does not have it yet; asking again later will help. Exit status 3."""

    exit_status = 3


class SourceError(VitrinaError):
    """The source failed or answered against its contract; nothing of the load was landed."""


class DeliveryError(SourceError):
    """What the source delivered can't be used as a whole, however often it is read; it has to be
    delivered anew."""


class SinkError(VitrinaError):
    """The warehouse refused the load; nothing of it was landed."""
