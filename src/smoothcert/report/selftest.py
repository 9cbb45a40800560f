"""The result of `smoothcert selftest`: its file, and its text."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from smoothcert.errors import FileError
from smoothcert.io.files import read_json

Verdict = Literal["green", "red", "skipped"]
Words = Annotated[str, Field(max_length=2000)]
Facts = Annotated[dict[Words, Words], Field(max_length=100)]


class _SelftestPart(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SelftestCheck(_SelftestPart):
    """One check: what was measured, what is allowed, and the verdict (skipped: `measured` says why)."""

    group: Words
    name: Words
    verdict: Verdict
    measured: Words
    allowed: Words = ""
    seconds: float = Field(0.0, ge=0)


class SelfTest(_SelftestPart):
    """A selftest: its date, settings, environment and checks. The verdict follows from them, and is never stored.

    Attributes:
        date: of its start, UTC.
        false_alarm: the probability that a right installation gets a red check by chance, at most.
        settings, environment: what was tested, and on what, in words.
    """

    selftest: Literal[1] = 1
    date: Words
    seconds: float = Field(ge=0)
    false_alarm: float = Field(gt=0, lt=1)
    settings: Facts
    environment: Facts
    checks: Annotated[tuple[SelftestCheck, ...], Field(min_length=1, max_length=1000)]

    @property
    def verdict(self) -> Verdict:
        """Red where any check is; green otherwise, if any is green."""
        found = {check.verdict for check in self.checks}
        return next(verdict for verdict in ("red", "green", "skipped") if verdict in found)

    def count(self, verdict: Verdict) -> int:
        return sum(check.verdict == verdict for check in self.checks)

    @property
    def summary(self) -> str:
        """The verdict in a sentence."""
        counts = ", ".join(f"{self.count(verdict)} {verdict}" for verdict in ("green", "red", "skipped"))
        words = {"green": "this installation passed", "red": "do not trust certificates made here",
                 "skipped": "nothing was checked"}
        return f"{self.verdict}: {words[self.verdict]} ({counts}; {self.seconds:.0f} s)"

    def content(self) -> dict[str, Any]:
        """Return the content of the file, with the verdict for whoever reads it alone."""
        return {"verdict": self.verdict, **self.model_dump(mode="json")}


def read_selftest(path: Path) -> SelfTest:
    """Read a result that `smoothcert selftest -o` wrote, or raise FileError for anything else."""
    content = read_json(path)
    fields = {name: value for name, value in content.items() if name != "verdict"} if isinstance(content, dict) else {}
    try:
        return SelfTest.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise FileError(f"{path} is no result of smoothcert selftest -o: {where}: {first['msg'].lower()}") from None


def selftest_text(found: SelfTest) -> str:
    """Return the result for people: settings, environment, a line for each check, the verdict."""
    settings = ", ".join(f"{name} {value}" for name, value in found.settings.items())
    facts = [f"{name}: {value}" for name, value in found.environment.items()]
    lines = [f"smoothcert selftest, {found.date}", settings, *facts]
    group = ""
    for check in found.checks:
        if check.group != group:
            group = check.group
            lines += ["", group]
        allowed = f" ({check.allowed})" if check.allowed else ""
        lines.append(f"  {check.verdict:<7}  {check.name}: {check.measured}{allowed}")
    return "\n".join([*lines, "", f"By chance alone a right installation gets a red check with probability at most "
                                  f"{found.false_alarm:g}.", found.summary])
