"""What a server's refusal is called here."""

from __future__ import annotations

from crossfade.errors import StoreError


class Refused(StoreError):
    """The server refused: `denied` where the account may not do that, `missing` where nothing is there."""

    def __init__(self, message: str, *, denied: bool = False, missing: bool = False) -> None:
        super().__init__(message)
        self.denied, self.missing = denied, missing
