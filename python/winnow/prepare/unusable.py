"""Reasons for which one row is left out."""


class Unusable(Exception):
    """One row or example cannot be used. `reason` is counted, `detail` says more of this one.

    Filters (a prompt that is too short) are no errors: `is_error` False, and --strict lets them pass.
    """

    def __init__(self, reason: str, detail: str = "", is_error: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail
        self.is_error = is_error
