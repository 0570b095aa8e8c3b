"""The errors that Lichen raises for what a user can put right. All derive from `LichenError`."""


class LichenError(Exception):
    """Anything Lichen refuses, in a sentence that says what to do. The command line prints it and exits with 1."""


class WeightsError(LichenError):
    """Weights that do not fit: unknown, of another model, or too large for exact coding."""


class DamagedError(LichenError):
    """A file that is not what its encoder wrote."""
