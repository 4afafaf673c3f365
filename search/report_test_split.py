"""What does the winner get right and wrong on the test split? Matrix, classes, and its worst mistakes as pictures."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from search.report_html import Html, image, join, section, table, tag
from search.report_source import ReportSource
from trainables.data import ImageData

_NUM_MISTAKES = 24
_NUMBERED_CLASSES = 25  # with more, a matrix is drawn as a picture without numbers
_MATRIX_SIDE = 720
_THUMBNAIL_SIDE = 128
_LISTED_CONFUSIONS = 15


@dataclass(frozen=True)
class Mistake:
    """An image that the winner took for something else.

    Attributes:
        row: of the data set.
        confidence: in what it said wrongly, in [0, 1].
    """

    row: int
    name: str
    truth: str
    predicted: str
    confidence: float


def test_sections(source: ReportSource, *, data: ImageData | None) -> Html:
    """Everything on the test split; empty while it has not been opened.

    Args:
        data: the run's images; without them mistakes are listed without pictures.
    """
    if source.test is None:
        return Html("")
    folder = source.paths.test
    return join(
        [
            _scores_section(source),
            _confusion_section(folder),
            _classes_section(folder),
            _mistakes_section(source, data=data),
        ]
    )


def worst_mistakes(source: ReportSource, *, count: int = _NUM_MISTAKES) -> list[Mistake]:
    """Wrong predictions of the test split, those first of which the winner was surest."""
    path = source.paths.test / "predictions.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        header, *lines = csv.reader(file)  # by place: a label may be called as any other column
    classes = [str(name) for name in source.environment.get("data", {}).get("classes", [])]
    if header[2] == "labels":
        found = [_label_mistake(line, header[4:]) for line in lines]
    else:
        found = [_class_mistake(line, classes) for line in lines]
    return sorted((each for each in found if each is not None), key=lambda each: -each.confidence)[:count]


def _scores_section(source: ReportSource) -> Html:
    assert source.test is not None
    low, high = source.test["interval95"]
    rows = [
        [name, value]
        for name, value in source.test.items()
        if isinstance(value, float) and name not in ("trial", "images")
    ]
    return section(
        "test",
        "Test split",
        table(["metric", "value"], rows, numeric=(1,), class_="narrow", caption="Scores on the test split"),
        note=f"Trial {source.test['trial']}, evaluated once on {source.test['images']:,} images that the search never "
        f"saw; the 95 % interval of its accuracy is {low:.4f} to {high:.4f}.",
    )


def _confusion_section(folder: Path) -> Html:
    path = folder / "confusion_matrix.csv"
    if not path.is_file():
        return Html("")
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        header, *lines = csv.reader(file)
    names = header[1:]
    matrix = np.array([[int(cell) for cell in line[1:]] for line in lines], dtype=np.int64)
    drawn = _numbered(matrix, names) if len(names) <= _NUMBERED_CLASSES else _pictured(matrix)
    listed = _confusions(matrix, names)
    return section(
        "confusion",
        "Confusion matrix",
        drawn,
        tag("h3", "Most frequent confusions"),
        table(
            ["true", "predicted", "images"], listed, numeric=(2,), class_="narrow", caption="Most frequent confusions"
        )
        if listed
        else tag("p", "No image was classified wrongly."),
        note="Rows are true classes, columns what the winner said; shaded by the share of the true class.",
    )


def _confusions(matrix: np.ndarray, names: list[str]) -> list[list[object]]:
    """True class, prediction and images, most frequent first."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_LISTED_CONFUSIONS]
    pairs = (divmod(int(place), len(names)) for place in order)
    return [[names[row], names[column], int(wrong[row, column])] for row, column in pairs if wrong[row, column]]


def _numbered(matrix: np.ndarray, names: list[str]) -> Html:
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    heads = tag("tr", tag("th", "true \\ predicted", scope="col"), *(tag("th", name, scope="col") for name in names))
    body = (
        tag(
            "tr",
            tag("th", name, scope="row"),
            *(
                tag("td", str(matrix[row, column]) if matrix[row, column] else "", class_=_cell(row, column),
                    style=f"--p:{100 * share[row, column]:.0f}%" if matrix[row, column] else None,
                    title=f"{name} taken for {other}: {matrix[row, column]}")
                for column, other in enumerate(names)
            ),
        )
        for row, name in enumerate(names)
    )  # fmt: skip
    caption = "Confusion matrix: images by true class and prediction"
    return tag(
        "div",
        tag("table", tag("caption", caption), tag("thead", heads), tag("tbody", *body), class_="matrix"),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def _cell(row: int, column: int) -> str:
    return "right" if row == column else "wrong"


def _pictured(matrix: np.ndarray) -> Html:
    """Blue on the diagonal, red beside it; see-through, so that it suits light and dark pages."""
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    size = len(matrix)
    pixels = np.zeros((size, size, 4), np.uint8)
    pixels[..., :3] = (200, 60, 50)
    pixels[range(size), range(size), :3] = (50, 110, 190)
    # The root lets a single confused image of a large class be seen.
    pixels[..., 3] = (255 * np.sqrt(share)).round()
    picture = Image.fromarray(pixels)
    scale = max(1, _MATRIX_SIDE // size)
    return tag(
        "p",
        image(
            png=_png(picture),
            alt=f"Confusion matrix of {size} classes; the most frequent confusions are listed below",
            width=size * scale,
            class_="pixels matrix-picture",
        ),
    )


def _classes_section(folder: Path) -> Html:
    rows = _read(folder / "per_class.csv")
    if not rows:
        return Html("")
    header = list(rows[0])
    cells = ([row["class"], *(_number(row[name]) for name in header[1:])] for row in rows)
    return section(
        "classes",
        "Class by class",
        table(header, cells, numeric=range(1, len(header)), sortable=True, class_="narrow",
              caption="Scores of each class on the test split"),
    )  # fmt: skip


def _mistakes_section(source: ReportSource, *, data: ImageData | None) -> Html:
    mistakes = worst_mistakes(source)
    if not mistakes:
        return Html("")
    pictures = _pictures(mistakes, data)
    cards = (
        tag(
            "figure",
            picture,
            tag(
                "figcaption",
                tag("strong", each.predicted),
                f" ({100 * each.confidence:.0f} %) ",
                tag("span", f"is {each.truth}", class_="truth"),
                tag("span", each.name or f"image {each.row}", class_="file"),
            ),
            class_="card",
        )
        for each, picture in zip(mistakes, pictures, strict=True)
    )
    missing = "" if data is not None else " The images could not be read again, so they are missing here."
    return section(
        "mistakes",
        "Worst mistakes",
        tag("div", *cards, class_="cards"),
        note="Test images that the winner classified wrongly, those first of which it was surest: what it said, how "
        f"sure it was, and the truth. Wrong labels in the data show up here too.{missing}",
    )


def _pictures(mistakes: list[Mistake], data: ImageData | None) -> list[Html | None]:
    """Small images are shown larger, large ones made smaller."""
    if data is None:
        return [None] * len(mistakes)
    shown: list[Html | None] = []
    rows = np.array([each.row for each in mistakes], dtype=np.int64)
    for each, pixels in zip(mistakes, data.take(rows), strict=True):
        picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        picture.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
        # The browser repeats the pixels: a digit of 8 x 8 takes 64 of them in the page, and not 16,384.
        scale = _THUMBNAIL_SIDE // max(picture.size)
        alt = f"{each.truth}, taken for {each.predicted}"
        width, height = picture.width * scale, picture.height * scale
        shown.append(
            image(png=_png(picture), alt=alt, width=width, height=height, class_="pixels" if scale > 1 else None)
        )
    return shown


def _class_mistake(line: list[str], classes: list[str]) -> Mistake | None:
    row, name, label, predicted, probability, *_ = line
    if label == predicted:
        return None
    return Mistake(
        row=int(row),
        name=name,
        truth=_class_name(label, classes),
        predicted=_class_name(predicted, classes),
        confidence=float(probability),
    )


def _label_mistake(line: list[str], classes: list[str]) -> Mistake | None:
    """The label of an image of which the winner was most wrongly sure."""
    truth = {int(number) for number in line[2].split()}
    said = [float(probability) for probability in line[4:]]
    wrong = [1 - each if index in truth else each for index, each in enumerate(said)]
    worst = max(range(len(wrong)), key=wrong.__getitem__)
    if wrong[worst] <= 0.5:
        return None
    name = classes[worst]
    return Mistake(
        row=int(line[0]),
        name=line[1],
        truth=name if worst in truth else f"not {name}",
        predicted=f"not {name}" if worst in truth else name,
        confidence=wrong[worst],
    )


def _class_name(number: str, classes: list[str]) -> str:
    return classes[int(number)] if int(number) < len(classes) else f"class {number}"


def _read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


def _number(text: str) -> object:
    if not text:
        return None
    return int(text) if text.isdecimal() else float(text)


def _png(picture: Image.Image) -> bytes:
    content = BytesIO()
    picture.save(content, format="png", optimize=True)
    return content.getvalue()
