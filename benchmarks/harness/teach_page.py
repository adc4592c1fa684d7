"""The console's page Teach in a browser, driven by the keys that a user presses."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect


def frames_of(page: Page) -> Locator:
    """Return the frames on the page, without those that are labelled already."""
    return page.locator("#frames figure:visible")


def first_frame(page: Page) -> int:
    """Return the sequence number of the page's first frame."""
    return int(str(frames_of(page).first.get_attribute("data-name")).rpartition("-")[2])


def press_on_first(page: Page, key: str) -> None:
    """Press a key on the page's first frame, which has the focus then.

    A page that was reloaded shows its frames before its script runs. Keys that are pressed until then have no effect.
    """
    frame = frames_of(page).first
    frame.wait_for()
    page.wait_for_load_state()
    frame.press(key)


def label_first(page: Page, label: str) -> None:
    """Give the first frame a label by the keyboard, as a new class if there is none of this name. Discard it for ``."""
    frames, classes = frames_of(page), page.locator(".classes li")
    name = frames.first.get_attribute("data-name")
    known = [each.get_attribute("data-label") for each in classes.all()]
    if not label:
        press_on_first(page, "Delete")
    elif label in known:
        press_on_first(page, str(known.index(label) + 1))
    else:
        press_on_first(page, "n")
        page.keyboard.type(label)
        page.keyboard.press("Enter")
        expect(classes).to_have_count(len(known) + 1)
    # After the page's last frame it loads the next ones.
    expect(page.locator(f'#frames figure[data-name="{name}"]:visible')).to_have_count(0)
