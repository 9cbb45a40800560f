"""The text of a planned claim, and of what became of it. Shares are rounded down."""

from pathlib import Path

from smoothcert.report.cost import duration
from smoothcert.results.figures import confidence, percent
from smoothcert.results.planning import ClaimOutcome, ClaimPlan


def render_plan(plan: ClaimPlan, file: Path | None) -> str:
    """Return a plan for people; `file` is where it was kept, None where it was not."""
    asked, chosen = plan.asked, plan.chosen
    wanted = chosen.bound if asked.accuracy is None else asked.accuracy
    lines = [
        f"claim   at least {percent(wanted)}% of new images are certified at radius {asked.radius:g}, with confidence "
        f"{confidence(asked.rho)}",
        f"chance  {chosen.chance:.2f} that the run proves it; {percent(chosen.expected)}% are to be expected "
        f"({percent(chosen.share)}% certified)",
        f"run     {chosen.images:,} images, none of the {plan.piloted:,} of {plan.pilot}; n_max {chosen.n_max:,}, "
        f"alpha {chosen.alpha:g}, one-sided, of the label's class alone",
        f"cost    {chosen.all_samples:,.0f} samples to be expected, {chosen.samples:,.0f} an image"
        + ("" if plan.seconds is None else f": {duration(plan.seconds)} at {plan.rate:,.0f} samples/s")
        + ("" if plan.cost is None else f", price {plan.cost:,.2f}"),
    ]
    lines += [f"note: {note}" for note in plan.notes]
    if file is None:
        lines.append("Give -o FILE to keep the plan; certify --config FILE runs it.")
    else:
        lines += [f"then    {plan.command(file)}", "        smoothcert plan --check run"]
    lines.append("The chance and the cost are estimates from the pilot. The bound that the run gives in the end holds "
                 "with its confidence whatever the pilot was.")
    return "\n".join(lines)


def render_outcome(found: ClaimOutcome) -> str:
    """Return the outcome of a claim for people."""
    verdict = "proved" if found.is_reached else "not proved"
    return "\n".join([
        f"claim   at least {percent(found.wanted)}% of new images are certified at radius {found.radius:g}, with "
        f"confidence {confidence(found.rho)}: {verdict}",
        f"bound   at least {percent(found.bound)}%, from {found.claims:,} of {found.images:,} images, alpha "
        f"{found.alpha:g}",
        f"cost    {found.samples:,} samples"])
