"""The plot of a study: what was seen of each expectation, drawn from the stored numbers."""

from matplotlib.ticker import MaxNLocator

from tikhon.report.drawing import INK, MUTED, PAPER, Plot, drawing, finished
from tikhon.report.evidence import expected, number, with_interval
from tikhon.studies.evidence import Evidence, Finding

MET, MISSED = "#000011", "#000012"


def study_plots(evidence: Evidence) -> list[Plot]:
    """A drawing for each measure that the study expects something of.

    A row is an arm against another: the differences by seed as dots, their mean with its 95% interval, and a broken
    line at what was expected at least.
    """
    measures = dict.fromkeys(finding.measure for finding in evidence.findings)
    return [_of_measure(evidence, measure) for measure in measures]


def _of_measure(evidence: Evidence, measure: str) -> Plot:
    findings = [finding for finding in evidence.findings if finding.measure == measure]
    words = []
    with drawing(330, 60 + 44 * len(findings)) as (figure, axes):
        axes.axvline(0, color=INK, linewidth=1.2)
        axes.grid(axis="y", visible=False)
        for row, finding in enumerate(findings):
            colour = MET if finding.met else MISSED
            seeds = _by_seed(evidence, finding)
            axes.plot(seeds, [row + 0.2] * len(seeds), "o", color=colour, markersize=4.0, alpha=0.6, markeredgewidth=0)
            if finding.low is not None and finding.high is not None:
                axes.plot([finding.low, finding.high], [row, row], color=colour, linewidth=2.2)
            axes.plot([finding.difference], [row], "D" if finding.met else "X", color=colour, markersize=6.5)
            if finding.margin:
                bar = finding.margin if finding.direction == "higher" else -finding.margin
                axes.plot([bar, bar], [row - 0.25, row + 0.35], color=MUTED, linestyle=(0, (3, 2)), linewidth=1.4)
            seen = with_interval(finding.difference, finding.low, finding.high, sign="+")
            axes.annotate(
                f"{finding.arm} against {finding.than}  {seen}",
                (0, row),
                xycoords=("axes fraction", "data"),
                xytext=(0, 8),
                textcoords="offset points",
                bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.0},
            )
            words.append(f"{finding.arm} against {finding.than} {seen}, expected {expected(finding)}")
        axes.set_ylim(len(findings) - 0.5, -0.85)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.06)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(lambda value, _: number(value) if abs(value) < 0.01 else f"{value:g}")
        axes.set_xlabel(f"difference in {measure}")
        return finished(figure, f"study {evidence.method} {measure}", measure, f"{measure}: {'; '.join(words)}")


def _by_seed(evidence: Evidence, finding: Finding) -> list[float]:
    arm, than = (evidence.measures[name][finding.measure] for name in (finding.arm, finding.than))
    return [one - other for one, other in zip(arm, than, strict=True)]
