"""The command line: nouns a person can guess, one line per foreseeable mistake."""

from crossfade.cli.app import main

__all__ = ["main"]
