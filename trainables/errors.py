"""Every error that vistune raises on purpose; each message says where, what was found and what to do."""


class VistuneError(Exception):
    """Base of all deliberate errors; its text is meant for the person who runs the search."""


class ConfigError(VistuneError):
    """The configuration cannot be run as written; raised before any training."""


class DataError(VistuneError):
    """The images or their labels cannot be used as they lie on disk."""


class ModelError(VistuneError):
    """An architecture cannot be built for this task (unknown, too small an image, no weights)."""


class DivergedError(VistuneError):
    """Training produced a loss or metric that is NaN or infinite."""


class CheckpointError(VistuneError):
    """A checkpoint cannot be read, or does not belong to this trial."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint was cut short or changed on disk."""


class SupersededError(VistuneError):
    """Another process trains this trial by now."""


class DisturbedError(VistuneError):
    """Another trial's failure has left a trial in the middle of an epoch; it can go on from its checkpoint."""


class CrowdedError(DisturbedError):
    """Memory ran out where trials share a device; one may fit beside fewer.

    Args:
        beside: how many other trials there were.
        own: what was said of a trial that failed by itself; empty where some failed together.
    """

    def __init__(self, beside: int, own: str = "") -> None:
        super().__init__(beside, own)
        self.own = own
        self.slots = max(1, (beside + 1) // 2)

    def __str__(self) -> str:
        beside, own = self.args
        told = f": {own}" if own else ""
        return (
            f"memory ran out beside {beside} other trial(s) on the device, {self.slots} may share it from now on{told}"
        )


class OutOfMemoryError(VistuneError):
    """Not even a micro-batch of one image fits into memory."""


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
