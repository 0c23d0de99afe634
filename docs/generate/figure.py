"""The figure of the data's way through the pipeline and production, as inline SVG in the colours of the page."""

from __future__ import annotations

from html import escape
from pathlib import Path

WIDTH, HEIGHT = 800, 380
BOX_WIDTH, BOX_HEIGHT, STEP = 92, 34, 112
PIPELINE_ROW, REPORT_ROW, PRODUCTION_ROW, INPUT_ROW = 50, 120, 220, 320
# The box, its output and its column.
PIPELINE = (
    ("ingest", "messages.parquet"),
    ("validate", "validation.json"),
    ("resample", "samples/"),
    ("train", "models/ logits/"),
    ("evaluate", "evaluations/"),
    ("compare", "leaderboard.json"),
    ("select", "selected/"),
)
PRODUCTION = ((6, "promote", "deployed/0001/"), (4, "score", "scored/"), (2, "watch", "watch/"), (0, "retrain", "retrain/"))


def left(column: int) -> int:
    """The left edge of the boxes of a column."""
    return 12 + column * STEP


def centre(column: int) -> int:
    """The horizontal centre of a column."""
    return left(column) + BOX_WIDTH // 2


def box(column: int, row: int, name: str, output: str) -> str:
    """A rounded box with its name, and its output below."""
    return (
        f'<rect x="{left(column)}" y="{row}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6" class="box"/>'
        f'<text x="{centre(column)}" y="{row + 22}" class="name">{escape(name)}</text>'
        f'<text x="{centre(column)}" y="{row + BOX_HEIGHT + 16}" class="file">{escape(output)}</text>'
    )


def arrow(*points: tuple[int, int]) -> str:
    """A line through points with a head at its end."""
    path = " L".join(f"{x} {y}" for x, y in points)
    return f'<path d="M{path}" class="arrow" marker-end="url(#head)"/>'


def note(x: int, y: int, text: str) -> str:
    """A note at an arrow."""
    return f'<text x="{x}" y="{y}" class="note">{escape(text)}</text>'


def data_flow(root: Path) -> str:
    """The figure as a raw block of HTML in MyST."""
    middle = BOX_HEIGHT // 2
    parts = [box(column, PIPELINE_ROW, *names) for column, names in enumerate(PIPELINE)]
    parts += [box(column, PRODUCTION_ROW, name, output) for column, name, output in PRODUCTION]
    parts += [box(5, REPORT_ROW, "report", "reports/index.html")]
    for column in range(len(PIPELINE) - 1):
        parts.append(arrow((left(column) + BOX_WIDTH, PIPELINE_ROW + middle), (left(column + 1), PIPELINE_ROW + middle)))
    below = PIPELINE_ROW + BOX_HEIGHT
    parts += [
        arrow((centre(5), below + 20), (centre(5), REPORT_ROW)),
        arrow((centre(6), below + 20), (centre(6), PRODUCTION_ROW)),
        arrow((left(6), PRODUCTION_ROW + middle), (left(4) + BOX_WIDTH, PRODUCTION_ROW + middle)),
        arrow((left(4), PRODUCTION_ROW + middle), (left(2) + BOX_WIDTH, PRODUCTION_ROW + middle)),
        arrow((left(2), PRODUCTION_ROW + middle), (left(0) + BOX_WIDTH, PRODUCTION_ROW + middle)),
        note((left(2) + left(0) + BOX_WIDTH) // 2, PRODUCTION_ROW + middle - 6, "retrain"),
        # A retraining runs the pipeline again.
        arrow((centre(0), PRODUCTION_ROW), (centre(0), below + 24)),
        note(centre(0) + 66, PRODUCTION_ROW - 40, "new labels"),
        # Another prior needs no training.
        arrow(
            (centre(2), PRODUCTION_ROW),
            (centre(2), PRODUCTION_ROW - 28),
            (left(6) + 16, PRODUCTION_ROW - 28),
            (left(6) + 16, PRODUCTION_ROW),
        ),
        note(centre(3) + 20, PRODUCTION_ROW - 34, "reprior: the same weights, another prior"),
        arrow((centre(4), INPUT_ROW - 14), (centre(4), PRODUCTION_ROW + BOX_HEIGHT + 24)),
        note(centre(4), INPUT_ROW, "messages"),
        arrow((centre(2), INPUT_ROW - 14), (centre(2), PRODUCTION_ROW + BOX_HEIGHT + 24)),
        note(centre(2), INPUT_ROW, "labels (any time)"),
        f'<text x="12" y="24" class="lane">The pipeline: DVC, {escape("params.yaml")}</text>',
        f'<text x="12" y="{HEIGHT - 16}" class="lane">Production: Prefect</text>',
    ]
    style = (
        ".flow text{fill:currentColor;text-anchor:middle;font-size:12px}.flow .name{font-size:14px;font-weight:600}"
        ".flow .file{font-family:monospace;font-size:11px;opacity:.8}.flow .lane{text-anchor:start;font-weight:600}"
        ".flow .box{fill:none;stroke:currentColor;stroke-width:1.5}.flow .arrow{fill:none;stroke:currentColor}"
    )
    head = '<marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    head += '<path d="M0 0 L8 4 L0 8 z" fill="currentColor"/></marker>'
    label = "Data pass ingest, validate, resample, train, evaluate, compare and select. Promote deploys the selected model."
    svg = f'<svg class="flow" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}" style="width:100%">'
    return f"```{{raw}} html\n{svg}<style>{style}</style><defs>{head}</defs>{''.join(parts)}</svg>\n```"
