"""The errors that Lichen raises for what a user can put right. All derive from `LichenError`."""


class LichenError(Exception):
    """Anything Lichen refuses, in a sentence that says what to do. The command line prints it and exits with 1."""


def reason_of(error: Exception) -> str:
    """Why something failed, for the middle of a sentence: what the system says, else the error itself."""
    return str(getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")


class NotLichenError(LichenError):
    """The data is no .lichen file at all: its first bytes are another format's."""


class DamagedError(LichenError):
    """A .lichen file that was cut short, altered, or holds what no writer writes."""


class VersionError(LichenError):
    """A .lichen file that needs a newer Lichen."""


class WeightsError(LichenError):
    """A model that is not known, or weights that are missing, unreadable, or not those a file was written with."""


class PictureError(LichenError):
    """A picture that cannot be read, is of a kind that is not supported, or cannot be written as asked."""


class LimitError(LichenError):
    """A picture larger than the limits of the format or the limit on pixels that the caller set."""


class TargetError(LichenError):
    """A size or a PSNR that no quality reaches, or that makes no sense."""


class EffortError(LichenError):
    """A level of effort that there is not, or that a model cannot make."""


class LichenWarning(UserWarning):
    """Something that Lichen did with less than the picture had, in a sentence that says what to do."""
