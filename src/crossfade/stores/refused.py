"""What a server's refusal is called here."""

from __future__ import annotations

from crossfade.errors import StoreError
from crossfade.stores.address import redact


class Refused(StoreError):
    """A server refused, or did not answer.

    Args:
        what: the store or the server's address, without credentials.
        server: what answers there.
        said: in the library's words; credentials are taken out.
        denied: whether the account may not do that.
        missing: whether nothing of that name is there.
    """

    def __init__(
        self, what: str, server: str, said: str, *, denied: bool = False, missing: bool = False
    ) -> None:
        remedy = "what was written is kept: check the server and the address, then run the same command again"
        if denied:
            remedy = "connect with an account that may do this"
        elif missing:
            remedy = "check the name"
        super().__init__(f"{what}: {server} refused or did not answer: {redact(said)}; {remedy}")
        self.denied, self.missing = denied, missing
