import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from prefrm import media, plots
from prefrm.errors import DataError
from prefrm.eval import Pairs, measure_calibration
from prefrm.video import encode_video
from prefrm.winmatrix import WinMatrix
from tests.prefrm.test_display import contrast

LINES = (2, 3, 9, 16)


def pictures(size):
    return [media.encode_png(Image.new("RGB", (20 + 3 * n, 30), (10 * n, 200, 90))) for n in range(size)]


def matrix(size, errors=None):
    u = np.arange(size, dtype=float)
    return WinMatrix.from_order_logits(u[:, None] - u[None, :], errors=errors)


def rendered(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    with Image.open(buffer) as image:
        return np.asarray(image.convert("RGB"))


def texts(axes):
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("size", LINES)
def test_every_cell_shows_its_number_and_nothing_leaves_the_picture(size):
    figure = plots.win_matrix_figure(matrix(size), pictures(size), "a red circle above a blue square " * 3)
    pixels = rendered(figure)
    shown = [text for text in texts(figure.axes[0]) if text in ("1.00",) or text.startswith(".")]
    assert len(shown) == size * (size - 1)
    edge = np.concatenate(
        [pixels[:8].reshape(-1, 3), pixels[-8:].reshape(-1, 3), pixels[:, :8].reshape(-1, 3)]
    )
    assert (edge == 255).all()


def test_a_text_shows_its_first_lines_and_a_video_some_frames():
    figure = plots.win_matrix_figure(matrix(3), ("Two birds.", "and more " * 500, None))
    shown = [text for text in texts(figure.axes[0]) if "bird" in text or "more" in text]
    assert shown[0] == shown[1] == "Two birds." and len(shown) == 4
    assert shown[2].startswith("and more") and shown[2].endswith("…") and shown[2].count("\n") > 3
    frames = [Image.new("RGB", (32, 32), (80 * n, 0, 0)) for n in range(4)]
    figure = plots.win_matrix_figure(matrix(2), (encode_video(frames, 4), b"no video"))
    strip, _, *_ = figure.axes[0].images
    # Between the white above and below it, the reds of three frames.
    row = strip.get_array()[strip.get_array().shape[0] // 2]
    reds = [int(row[x, 0]) for x in (len(row) // 6, len(row) // 2, 5 * len(row) // 6)]
    assert reds == sorted(reds) and reds[2] > 180 and len(figure.axes[0].images) == 2


def test_the_criterion_and_the_context_stand_above_the_matrix_and_take_no_room_without_them():
    wide = media.encode_png(Image.new("RGB", (90, 30), (200, 0, 0)))
    plain, small = plots.win_matrix_figure(matrix(2), pictures(2), "a cat"), matrix(2)
    figure = plots.win_matrix_figure(small, pictures(2), "a cat", criterion="detail", context=[wide] * 9)
    written = texts(figure)
    assert written[:4] == ["a cat", "criterion", "detail", "context"] and "and 7 more" in written
    assert not {"criterion", "context"} & {*texts(plain)}
    assert figure.get_figheight() - plain.get_figheight() == pytest.approx(0.22 + 1.4 / 3 + 2 * 0.08)
    first, second = figure.axes[1:3]
    assert first.images[0].get_array()[0, 0].tolist() == [200, 0, 0]
    box = first.get_position()
    assert box.x1 < second.get_position().x0
    assert box.width * figure.get_figwidth() == pytest.approx(3 * box.height * figure.get_figheight())
    assert not plots.win_matrix_figure(small, context=[b"no image"]).axes[1].images


def test_an_explanation_shows_the_criterion_and_the_context():
    (image,) = pictures(1)
    maps, parts = [np.ones(2, np.float32)] * 2, [("two", "birds")] * 2
    made = [
        plots.explanation_figure(("two birds",) * 2, maps, parts, title="?", captions="AB", **more)
        for more in ({}, {"criterion": "detail", "context": [image]})
    ]
    plain, full = ([text.get_text() for text in figure.texts] for figure in made)
    assert {*full} - {*plain} == {"criterion", "detail", "context"}
    assert len(made[1].axes) == len(made[0].axes) + 1
    assert made[1].get_figheight() > made[0].get_figheight() + 0.8


def test_a_win_is_blue_a_loss_is_orange_and_a_tie_is_neither():
    figure = plots.win_matrix_figure(
        WinMatrix.from_order_logits(np.array([[0, 4, 0], [-4, 0, 0], [0, 0, 0.0]]))
    )
    faces = {
        (round(box.get_y()), round(box.get_x())): box.get_facecolor()[:3]
        for box in figure.axes[0].patches
        if isinstance(box, Rectangle) and 0 <= box.get_x() < 3 and box.get_height() > 0.5
    }
    assert faces[0, 1][2] > 2 * faces[0, 1][0]
    assert faces[1, 0][0] > 2 * faces[1, 0][2]
    assert max(faces[0, 2]) - min(faces[0, 2]) < 0.03


def test_what_was_not_judged_is_hatched_and_says_why():
    figure = plots.win_matrix_figure(
        matrix(4, ("", "", "the image is empty (0 bytes)", "")), [*pictures(2), b"", pictures(1)[0]]
    )
    hatched = [box for box in figure.axes[0].patches if box.get_hatch()]
    # Seven cells, and the place of the image in the row and in the column.
    assert len(hatched) == 7 + 2
    assert [text.get_text() for text in figure.texts if "empty" in text.get_text()] == [
        "2: the image is empty (0 bytes)"
    ]
    assert "not judged" in texts(figure.axes[0])
    rendered(figure)


def test_a_silent_pair_is_noted_once():
    z = np.zeros((3, 3))
    z[0, 2] = np.nan
    figure = plots.win_matrix_figure(WinMatrix.from_order_logits(z), labels=["a.png", "b.png", "c.png"])
    notes = [text.get_text() for text in figure.texts]
    assert "a.png against c.png: the judge gave no finite answer for this pair" in notes


def test_an_inferred_cell_is_smaller_slanted_and_explained():
    u = np.array([2.0, 1.0, 0.0, 9.0])
    z = np.subtract.outer(u, u)
    z[3], z[:, 3] = np.nan, np.nan
    judged = z.copy()
    judged[0, 2] = judged[2, 0] = np.nan
    part = WinMatrix.from_order_logits(judged).with_inferred(z)
    figure = plots.win_matrix_figure(part)
    axes = figure.axes[0]
    cells = [box.get_width() for box in axes.patches if 0 <= box.get_x() < 4 and box.get_height() > 0.5]
    assert sorted(cells) == [0.62] * 2 + [0.96] * 14
    slanted = [text.get_text() for text in axes.texts if text.get_style() == "italic"]
    assert sorted(slanted) == [".12", ".88"]
    words = [text.get_text() for text in figure.texts]
    assert "inferred" in words and "judged" in words
    # 3 was judged with nobody and hatched; 0 against 2 needs no excuse.
    assert len([box for box in axes.patches if box.get_hatch()]) == 6
    assert [word for word in words if "against" in word] == [
        "0 against 3 and 2 more: this pair was not judged, and no chain of judged pairs connects the two"
    ]
    assert "inferred" not in [text.get_text() for text in plots.win_matrix_figure(matrix(3)).texts]
    rendered(figure)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("long_name_of_image_{}.png", "…f_image_0.png"), ("{}_of_one_long_run.png", "0")],
)
def test_a_long_name_keeps_its_end_unless_all_ends_are_the_same(name, shown):
    figure = plots.win_matrix_figure(matrix(4), labels=[name.format(n) for n in range(4)])
    assert shown in texts(figure.axes[0])


def test_the_win_rates_stand_beside_the_rows():
    judged = matrix(3)
    figure = plots.win_matrix_figure(judged)
    assert [t for t in texts(figure.axes[0]) if t.startswith("0.")] == [f"{r:.3f}" for r in judged.win_rate()]


def table(p, target):
    n = len(p)
    ones = np.ones(n)
    columns = Pairs(
        p=np.array(p),
        order_gap=ones,
        tie=ones * np.nan,
        target=np.array(target),
        weight=ones,
        prompt=np.arange(n),
        lower_first=ones > 0,
    )
    return measure_calibration(columns).table


def test_the_reliability_figure_draws_the_bins_that_hold_pairs():
    figure = plots.reliability_figure({"raw": table([0.9, 0.9, 0.6], [1.0, 0.0, 1.0])})
    curve = figure.axes[0].lines[1]
    np.testing.assert_allclose(curve.get_xdata(), [0.6, 0.9])
    np.testing.assert_allclose(curve.get_ydata(), [1.0, 0.5])
    assert sum(bar.get_height() for bar in figure.axes[1].patches) == pytest.approx(1.0)
    rendered(figure)


@pytest.mark.parametrize("names", [["as scored"], ["as scored", "at temperature 0.753"]])
def test_nothing_is_written_where_a_reliability_curve_may_be(names):
    figure = plots.reliability_figure({name: table([0.6, 0.97], [1.0, 1.0]) for name in names})
    rendered(figure)
    upper, lower = figure.axes
    assert not upper.texts and upper.get_legend() is None
    legend = lower.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["perfect", *names]
    box, label = legend.get_window_extent(), lower.xaxis.label.get_window_extent()
    assert box.y1 <= label.y0 and box.y0 >= 0
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


def test_bars_are_as_long_as_their_values():
    figure = plots.bars(
        {"one": 0.25, "two": 1.0}, intervals={"one": (0.1, 0.5), "two": (0.9, 1.0)}, reference=0.5
    )
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.25, 1.0]
    assert texts(figure.axes[0]) == ["0.250", "1.000"]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["chance"]
    rendered(figure)


@pytest.mark.parametrize("draw", [plots.bars, lambda values: plots.grouped_bars({"judge": values})])
def test_long_names_can_still_be_told_apart(draw):
    names = ["colour\nattribution", *(f"laboratory/a-model-without-any-space-v{n}" for n in (1, 2))]
    shown = [text.get_text() for text in draw(dict.fromkeys(names, 0.5)).axes[0].get_yticklabels()]
    assert shown == [
        "colour attribution",
        "laboratory/a-mo…t-any-space-v1",
        "laboratory/a-mo…t-any-space-v2",
    ]


def test_numbers_stand_beside_their_bars_and_clear_of_every_mark():
    plain = plots.bars({"one": 0.25, "two": 1.0}).axes[0]
    assert [text.xy[0] for text in plain.texts] == [0.25, 1.0]
    assert plain.get_legend() is None
    figure = plots.bars({"one": 0.25, "two": 1.0}, marks={"chance": {"one": 0.5, "two": 1.0}})
    rendered(figure)
    axes = figure.axes[0]
    places = [text.get_window_extent() for text in axes.texts]
    assert places[0].x0 == pytest.approx(places[1].x0)
    radius = np.sqrt(axes.collections[0].get_sizes().max() / np.pi) / 72 * figure.dpi
    assert places[0].x0 > axes.transData.transform((1.0, 0))[0] + radius
    assert max(place.x1 for place in places) <= figure.bbox.x1


def test_marks_lie_on_the_bars_that_they_belong_to():
    figure = plots.bars({"one": 0.25, "two": 1.0}, marks={"chance": {"one": 0.5, "two": 0.3}})
    (marks,) = figure.axes[0].collections
    np.testing.assert_allclose(marks.get_offsets(), [[0.5, 0], [0.3, 1]])
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["chance"]
    rendered(figure)


def test_grouped_bars_stand_in_order_under_each_name():
    series = {"first": {"a": 0.2, "b": 1.5}, "second": {"a": 0.4, "b": 0.0}}
    figure = plots.grouped_bars(series, intervals={k: {"a": (0.1, 0.5), "b": (0, 2)} for k in series})
    bars = sorted((bar.get_y(), bar.get_width()) for bar in figure.axes[0].patches)
    assert [width for _, width in bars] == [0.2, 0.4, 1.5, 0.0]
    assert texts(figure.axes[0]) == ["0.200", "1.500", "0.400", "0.000"]
    assert figure.axes[0].get_xlim()[1] > 2
    rendered(figure)


def test_the_order_gap_histogram_holds_every_pair():
    figure = plots.order_gap_figure(np.array([0.0, 0.01, 0.2, 1.0]))
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == pytest.approx(1.0)
    assert "mean 0.303" in texts(figure.axes[0]) or "mean 0.302" in texts(figure.axes[0])
    rendered(figure)


def test_the_order_gap_histogram_counts_by_weight():
    figure = plots.order_gap_figure(np.array([0.01, 0.91]), np.array([1.0, 99.0]))
    assert [bar.get_height() for bar in figure.axes[0].patches if bar.get_height()] == [0.01, 0.99]
    assert texts(figure.axes[0]) == ["mean 0.901"]


def test_a_long_learning_curve_is_shown_with_its_running_mean():
    long = [(float(n), float(n % 2)) for n in range(90)]
    figure = plots.learning_curve({"loss": long, "validation": [(0, 1.0), (89, 0.5)]}, title="Loss")
    raw, mean, validation = figure.axes[0].lines
    assert len(raw.get_ydata()) == len(mean.get_ydata()) == 90
    # The mean of the last three values: 1, 0, 1 or 0, 1, 0.
    assert mean.get_ydata()[-1] == pytest.approx(2 / 3)
    assert validation.get_label() == "validation: 0.5"
    assert to_rgb(raw.get_color()) != to_rgb(validation.get_color())
    rendered(figure)


@pytest.mark.parametrize("text", ["costs $5 or $6", "$\\frac{1}$ and a_b", "一只红色的猫"])
def test_text_is_shown_as_it_is_written(text):
    """Warnings are errors here, so a glyph that no font has must not warn by itself."""
    rendered(plots.win_matrix_figure(matrix(2), pictures(2), text, labels=[text, "b"]))
    rendered(plots.bars({text: 0.5}, title=text))
    rendered(plots.learning_curve({text: [(0, 1.0)]}, title=text, ylabel=text))
    figure = plots.win_matrix_figure(matrix(2), prompt=text)
    for kind in ("svg", "pdf"):
        figure.savefig(io.BytesIO(), format=kind)
    assert not any(shown.get_parse_math() for shown in figure.findobj(Text))


LONG = "a very long line\nthat nobody would read \t to its end, " * 20


def drawn_with_long_texts():
    errors = ["", LONG, "", ""]
    yield plots.win_matrix_figure(
        matrix(4, errors), pictures(4), LONG, labels=[f"{LONG}{n}" for n in range(4)]
    )
    yield plots.bars({LONG: 0.5, "b": 0.4}, title=LONG, marks={LONG: {LONG: 0.1, "b": 0.2}}, reference=0.5)
    yield plots.grouped_bars({LONG: {LONG: 0.5}, "b": {LONG: 0.4}}, title=LONG, xlabel=LONG)
    yield plots.learning_curve({LONG: [(0, 1.0), (1, 2.0)]}, title=LONG, xlabel=LONG, ylabel=LONG)
    yield plots.reliability_figure({LONG: table([0.6, 0.97], [1.0, 1.0])})


@pytest.mark.parametrize("number", range(5))
def test_no_text_leaves_the_figure_or_breaks_a_line_and_what_is_cut_says_so(number):
    figure = list(drawn_with_long_texts())[number]
    rendered(figure)
    long = [text for text in figure.findobj(Text) if text.get_text().startswith("a very")]
    assert long
    for text in long:
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1
        assert "\n" not in text.get_text() and "\t" not in text.get_text()
    assert any("…" in text.get_text() for text in long)
    notes = [text.get_text() for text in figure.findobj(Text) if text.get_text().startswith("…")]
    assert len(notes) == (8 if number == 0 else 0)


def test_numbers_can_be_read_on_every_colour_of_a_cell():
    p = np.linspace(0.02, 0.98, 15)
    z = np.zeros((6, 6))
    z[np.triu_indices(6, 1)] = np.log(p / (1 - p))
    axes = plots.win_matrix_figure(WinMatrix.from_order_logits(z - z.T)).axes[0]
    faces = {(box.get_x() // 1, box.get_y() // 1): box.get_facecolor()[:3] for box in axes.patches[:36]}
    numbers = [text for text in axes.texts if text.get_text().startswith(".")]
    assert len(numbers) == 30
    for text in numbers:
        x, y = text.get_position()
        assert contrast(to_rgb(text.get_color()), faces[x // 1, y // 1]) >= 4.5


def test_of_a_large_group_the_best_candidates_are_drawn_and_a_note_says_so():
    figure = plots.win_matrix_figure(
        matrix(65), pictures(65), labels=[f"image_{n}_of_a_run" for n in range(65)]
    )
    rates = [text for text in texts(figure.axes[0]) if text.startswith("0.")]
    assert rates == [f"{rate:.3f}" for rate in matrix(65).win_rate()[-24:]]
    assert "24 of 65 candidates are drawn: those with the highest win rates over all" in [
        text.get_text() for text in figure.texts
    ]
    # Their names end alike; their indices are those of the whole group.
    assert {"41", "64"} <= set(texts(figure.axes[0]))
    assert len(plots.win_matrix_figure(matrix(30), most=30).axes[0].texts) > 30 * 29


def test_what_cannot_be_drawn_is_an_error_that_says_so():
    with pytest.raises(DataError, match="candidates of a matrix of 3 must be 3; received 2"):
        plots.win_matrix_figure(matrix(3), pictures(2))
    with pytest.raises(DataError, match="labels of a matrix of 3 must be 3; received 4"):
        plots.win_matrix_figure(matrix(3), labels=list("abcd"))
    with pytest.raises(DataError, match="no order gap to draw"):
        plots.order_gap_figure(np.array([]))


def test_no_figure_touches_the_global_state():
    from matplotlib import _pylab_helpers

    plots.win_matrix_figure(matrix(2), pictures(2), "x")
    assert not _pylab_helpers.Gcf.figs
