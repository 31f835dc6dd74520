"""What is raised where a verb may not be done: sentences for the one who asked."""

from __future__ import annotations


class Refused(Exception):
    """Nothing was changed. Each sentence says what stands against it, and what would be right."""

    def __init__(self, *sentences: str) -> None:
        self.sentences = sentences
        super().__init__("\n".join(sentences))
