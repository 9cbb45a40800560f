"""`smoothcert plot`: a sub-command for each kind of picture, with the options of that kind alone."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import AfterValidator, Field, create_model
from typer.core import TyperCommand, TyperGroup

from smoothcert.cli.options import make_command
from smoothcert.cli.output import fail_for, report_errors, say
from smoothcert.config.base import Config
from smoothcert.config.fields import Local
from smoothcert.report.options import AnyStoredDenoiser, StoredDenoiser, StoredImages, StoredModel
from smoothcert.report.plots.kinds import KINDS, Kind, find_kind

_UsageError: Any = typer.BadParameter.__bases__[0]  # click's, which newer releases of typer keep to themselves


def _check_ending(file: Path) -> Path:
    from smoothcert.report.plots.style import check_ending  # brings matplotlib, which --help does without

    check_ending(file)
    return file


class PictureConfig(Config):
    """Options of the file that a picture is written into."""

    out: Annotated[Local, AfterValidator(_check_ending)] = Field(
        description="the picture: .png, .svg or .pdf", json_schema_extra={"metavar": "FILE"})
    title: str = Field("", description="a line above the picture (default: none)")


class KindCommand(TyperCommand):
    """The command of a kind of picture; options that only other kinds take are refused with the names of those."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except _UsageError as error:
            field = getattr(error, "option_name", "").removeprefix("--").replace("-", "_")
            kinds = [name for name, kind in KINDS.items()
                     if any(field in part.model_fields for part in (kind.options, *kind.needs))]
            if kinds and self.name not in kinds:
                error.message = (f"No such option: {error.option_name}. {self.name} does not take it; these kinds do: "
                                 f"{', '.join(kinds)}")
                error.possibilities = None
            raise


class PlotGroup(TyperGroup):
    """The kinds of picture, by name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if KINDS.is_own(args[0]):
            return super().resolve_command(ctx, args)
        kind = report_errors(find_kind)(args[0])
        app = typer.Typer(add_completion=False)
        _add_command(app, args[0], kind)
        return args[0], typer.main.get_command(app), args[1:]


def draw(name: str, config: Any) -> None:
    """Draw a picture of a kind, and write it into its file."""
    from smoothcert.report.plots.drawing import draw_picture
    from smoothcert.report.plots.style import save

    def answers_of(store: Any) -> Any:
        from smoothcert.runs.reopen import reopen_answers

        return reopen_answers(store, config)

    def estimates_of(store: Any) -> Any:
        from smoothcert.results.denoising import Estimates
        from smoothcert.runs.reopen import reopen_estimates

        return Estimates(*reopen_estimates(store, **config.select(StoredDenoiser)))

    has = partial(isinstance, config)
    figure, problems = draw_picture(
        name, config, images_of=images_of(config) if has(StoredImages) else None,
        answers_of=answers_of if has(StoredModel) else None,
        estimates_of=estimates_of if has(AnyStoredDenoiser) and config.denoiser else None)
    save(figure, config.out, config.title)
    say(f"wrote {config.out}", err=True)
    fail_for(problems)


def _add_command(app: typer.Typer, name: str, kind: Kind) -> None:
    """Add the command that draws one kind of picture."""
    config = create_model(f"Plot {name}", __base__=(kind.options, *kind.needs, PictureConfig))
    words = f"{kind.words[0].upper()}{kind.words[1:]}."
    app.command(name, cls=KindCommand, help=words)(make_command(partial(draw, name), config))


def images_of(config: StoredImages) -> Any:
    """Return a function of a store that opens its data set, where the options say that it is."""

    def open_images(store: Any) -> Any:
        from smoothcert.runs.reopen import reopen_data  # brings torch, which other pictures do without

        return reopen_data(store, **config.select(StoredImages))

    return open_images


plot = typer.Typer(
    name="plot", cls=PlotGroup, no_args_is_help=True, subcommand_metavar="KIND STORE... -o FILE [OPTIONS]",
    help="Draw a picture from stores: curves, envelopes, projections, galleries, noise panels, decision regions, "
         "denoisers. Each kind has options of its own: `smoothcert plot KIND --help`.")
for _name in KINDS.own_names:
    _add_command(plot, _name, KINDS[_name])
