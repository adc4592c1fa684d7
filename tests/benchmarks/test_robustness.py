"""The README's rows on the hardened scene network."""

from __future__ import annotations

from pathlib import Path

from benchmarks.pages.robustness import _hard_scenes, _scene


def test_hard_scenes_are_summed_over_the_drop_ratios_and_only_like_is_set_beside_like(tmp_path: Path) -> None:
    file = tmp_path / "scene-hard.csv"
    file.write_text(
        "model,height,width,drop,frames,right\n"
        "scene@1-hardened+a,32,32,0.25,10,9\nscene@1-hardened+a,32,32,0.5,10,9\n"
        "scene@1+b,32,32,0.25,10,6\nscene@1+b,32,32,0.5,10,3\n"
        "scene@1-hardened+a,64,64,0.25,10,9\n"
    )
    ((what, wanted, found),) = _hard_scenes(file)
    assert "32 lines" in what
    assert (wanted, found) == ("≥ .97", "2.000 of 20")


def test_the_plain_network_stands_behind_the_hardened_one_and_is_asked_for_nothing(tmp_path: Path) -> None:
    file = tmp_path / "scene-attacked.csv"
    file.write_text(
        "model,height,width,frames,clean,attacked,resubmitted,seconds\n"
        "scene@1+b,32,32,10,1,0.5,0.4,1\nscene@1-hardened+a,32,32,10,1,0.9,0.9,1\n"
    )
    hardened, plain = _scene(file)
    assert "hardened" in hardened[0]
    assert hardened[1].startswith("≥ .95")
    assert plain[1] == "for comparison"
