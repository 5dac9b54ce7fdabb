"""Print the files of the package that are installed, relative to the package's own folder.

meson.build asks at configuration time, so that a new module needs no second entry anywhere.
"""

import sys
from pathlib import Path

package = Path(sys.argv[1])
for path in sorted(package.rglob("*")):
    inside = path.relative_to(package)
    if inside.parts[0] == "native" or "__pycache__" in inside.parts:
        continue
    if path.suffix in {".py", ".pyi"} or path.name == "py.typed":
        print(inside.as_posix())
