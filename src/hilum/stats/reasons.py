"""The reason why a result, or a part of it, is missing: a notice, and its text."""

from hilum.notices import Notice


class WithReason:
    """A result that may carry a `notice`: why something is missing, or what a reader must know of it."""

    notice: Notice | None

    @property
    def reason(self) -> str | None:
        """The notice in English; None where all is plain."""
        return None if self.notice is None else self.notice.text

    def reason_to_dict(self) -> dict[str, str]:
        """Return the notice's text and code as `reason` and `reason_code`; nothing where there is none."""
        return {} if self.notice is None else {"reason": self.notice.text, "reason_code": self.notice.code}
