"""Settings of the documentation; `make docs` builds it."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ppserver import __version__  # noqa: E402
from ppserver.config import table  # noqa: E402

project = "ppserver"
author = "the ppserver authors"
copyright = "2026, the ppserver authors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_generated"]
html_theme = "furo"
html_title = "ppserver"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
nitpicky = False


def shown(value: object) -> str:
    if value is None or value == "" or value == ():
        return "unset"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (tuple, list)):
        return ", ".join(f"`{item}`" for item in value)
    return f"`{value}`"


def write_settings(app: object) -> None:
    """The reference of settings is made from the table that the command line is made from."""
    groups: dict[str, list[str]] = {}
    for option in table().values():
        setting = option.setting
        text = setting.help[:1].upper() + setting.help[1:]
        lines = [f"### {option.name}", "", text + ("" if text.endswith(".") else "."), ""]
        if option.name != "app":
            lines += [f"- Flag: `{option.flag}`", f"- Environment: `{option.env}`"]
            if setting.aliases:
                names = ", ".join(f"`{name}`" for name in setting.aliases)
                lines += [f"- Also called, in every source: {names}"]
            if setting.choices:
                lines += ["- One of: " + ", ".join(f"`{choice}`" for choice in setting.choices)]
            lines += [f"- Default: {shown(option.default)}"]
            if setting.minimum is not None and setting.maximum is not None:
                lines += [f"- Range: {setting.minimum:g} to {setting.maximum:.10g}"]
        groups.setdefault(setting.group, []).append("\n".join(lines))
    folder = Path(__file__).parent / "_generated"
    folder.mkdir(exist_ok=True)
    text = "\n\n".join(
        f"## {group}\n\n" + "\n\n".join(settings) for group, settings in groups.items()
    )
    (folder / "settings.md").write_text(text + "\n", encoding="utf-8")


def setup(app: object) -> None:
    app.connect("builder-inited", write_settings)  # type: ignore[attr-defined]
