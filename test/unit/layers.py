#!/usr/bin/env python3
"""Hold the sources against the grammar of the tree (STYLE.md). usage: layers.py CHECK SOURCE-ROOT

order      an include names a module of an earlier plane or an earlier row of the same meson.build,
           and with two slashes only what is private to the module of the file itself
headers    every header compiles alone
contracts  every prototype in a public header stands in a paragraph that begins with a comment
banned     no call of a C function that cannot be used safely
packages   the README's table of dependencies says what tools/packages says
sizes      a report and no gate: the longest functions and files
"""
import concurrent.futures
import pathlib
import re
import subprocess
import sys

# The only headers of src/ that programs without libc, kernel or Kiln around them may include.
FOR_SDK = {"base/ring.h", "machine/abi.h"}


def strip_comments(text):
    """Without # comments of meson; no string of ours holds a #."""
    return "\n".join(line.split("#")[0] for line in text.splitlines())


class Tree:
    """Modules in order, and which one owns which file."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.src = self.root / "src"
        planes = re.findall(r"subdir\('(\w+)'\)", (self.src / "meson.build").read_text())
        self.planes = {plane: at for at, plane in enumerate(planes)}
        self.modules = {}        # name -> position
        self.owner = {}          # "base/str/view.c" -> "base/str"
        for plane in planes:
            self.read_plane(plane)

    def read_plane(self, plane):
        text = strip_comments((self.src / plane / "meson.build").read_text())
        row = re.compile(r"\[\s*'(" + plane + r"/\w+)',\s*(files\(([^)]*)\)|\[\])")
        for found in row.finditer(text):
            self.modules[found[1]] = len(self.modules)
            for name in re.findall(r"'([^']+)'", found[3] or ""):
                self.owner[f"{plane}/{name}"] = found[1]

    def files(self):
        for path in sorted(self.src.rglob("*.[ch]")):
            yield path, path.relative_to(self.src).as_posix()

    def module_of(self, name):
        """The module that a file belongs to; None for the main file of a program."""
        if name in self.owner:
            return self.owner[name]
        parts = name.removesuffix(".h").removesuffix(".c").split("/")
        if len(parts) == 2 and name.endswith(".h"):
            return "/".join(parts)
        beside = [m for n, m in self.owner.items() if n.rsplit("/", 1)[0] == "/".join(parts[:2])]
        return max(beside, key=self.modules.get, default=None)


def includes(path):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        found = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if found:
            yield number, found[1]


def why_not(tree, name, include):
    """Why the file must not have this include, or None."""
    parts = include.split("/")
    if parts[0] not in tree.planes or len(parts) not in (2, 3):
        return "is not plane/module.h or plane/module/private.h"
    if not (tree.src / include).exists():
        return "does not exist"
    plane = name.split("/")[0]
    if len(parts) == 3:
        inside = "/".join(parts[:2])
        ours = name.startswith(inside + "/") or name == inside + ".c"
        return None if ours else f"is private to {inside}"
    module = include.removesuffix(".h")
    if module not in tree.modules:
        return f"has no row in src/{parts[0]}/meson.build"
    if tree.planes[parts[0]] != tree.planes[plane]:
        return None if tree.planes[parts[0]] < tree.planes[plane] else "is of a later plane"
    mine = tree.module_of(name)
    if mine is None or module == mine or tree.modules[module] < tree.modules[mine]:
        return None
    return f"stands after {mine} in src/{plane}/meson.build"


def check_order(tree):
    problems = []
    for path, name in tree.files():
        mine = tree.module_of(name)
        if mine is not None and mine not in tree.modules:
            problems.append(f"src/{name}: has no row in src/{name.split('/')[0]}/meson.build")
            continue
        for number, include in includes(path):
            why = why_not(tree, name, include)
            if why:
                problems.append(f'src/{name}:{number}: "{include}" {why}')
    for path in sorted((tree.root / "sdk").rglob("*.[ch]")):
        for number, include in includes(path):
            beside = (path.parent / include).exists() or (tree.root / "sdk" / include).exists()
            if not beside and include not in FOR_SDK:
                problems.append(f'{path}:{number}: "{include}" is not for the SDK')
    return problems


def compile_alone(tree, header, flags):
    command = ["cc", "-std=gnu17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wshadow", "-Wconversion",
               "-Wstrict-prototypes", "-Wundef", "-Werror", "-Wno-missing-field-initializers",
               "-fsyntax-only", "-I", str(tree.src), "-I", str(tree.root / "sdk"),
               "-isystem", str(tree.root / ".deps/llhttp"), *flags, "-xc", "-"]
    text = f'#include "{header}"\n#include "{header}"\n'
    run = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    return None if run.returncode == 0 else f"{header} does not compile alone:\n{run.stderr}"


def check_headers(tree):
    jobs = [(name, []) for _, name in tree.files() if name.endswith(".h")]
    sdk = tree.root / "sdk"
    jobs += [(path.relative_to(sdk).as_posix(), ["-ffreestanding"])
             for path in sorted(sdk.rglob("*.h"))]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = pool.map(lambda job: compile_alone(tree, *job), jobs)
        return [why for why in results if why]


def prototypes_without_contract(text):
    """Line numbers of prototypes whose paragraph does not begin with a comment."""
    commented = False
    in_comment = False
    before_blank = True
    for number, line in enumerate(text.splitlines(), 1):
        if in_comment:
            in_comment = "*/" not in line
            continue
        if not line.strip():
            before_blank = True
            commented = False
            continue
        if line.startswith(("/*", "//")):
            in_comment = line.startswith("/*") and "*/" not in line
            commented = True
            before_blank = False
            continue
        if before_blank:
            commented = False
            before_blank = False
        starts = re.match(r"(kn_must_use\s+)?(const\s+)?(struct\s+|enum\s+|unsigned\s+)?\w+[\s*]+"
                          r"(kn_\w+)\(", line)
        if starts and not commented and not line.startswith(("static", "typedef", "return")):
            yield number, starts[4]


def check_contracts(tree):
    problems = []
    public = [(path, f"src/{name}") for path, name in tree.files()
              if name.endswith(".h") and name.count("/") == 1]
    public += [(path, path.relative_to(tree.root).as_posix())
               for path in sorted((tree.root / "sdk").rglob("*.h"))]
    for path, name in public:
        for number, function in prototypes_without_contract(path.read_text()):
            problems.append(f"{name}:{number}: {function}() has no contract above it")
    return problems


BANNED = {
    "strcpy": "snprintf or kn_buf", "strcat": "kn_buf", "stpcpy": "kn_buf",
    "strncpy": "memcpy or snprintf", "strncat": "kn_buf", "sprintf": "snprintf or kn_buf_printf",
    "vsprintf": "vsnprintf", "strtok": "kn_view_split", "gets": "kn_read_all",
    "atoi": "kn_parse_u64", "atol": "kn_parse_u64", "atoll": "kn_parse_u64",
    "atof": "strtod", "system": "kn_spawn", "popen": "kn_spawn", "tmpnam": "kn_write_file",
    "mktemp": "mkstemp", "alloca": "kn_arena", "rand": "getrandom",
}


def without_comments_and_strings(text):
    """The same lines, so that numbers stay right."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)
    return pattern.sub(lambda found: "\n" * found[0].count("\n"), text)


def sources(tree):
    for folder in ("src", "sdk"):
        for path in sorted((tree.root / folder).rglob("*.[ch]")):
            yield path.relative_to(tree.root).as_posix(), path.read_text()


def check_banned(tree):
    call = re.compile(r"(?<![\w.>])(" + "|".join(BANNED) + r")\s*\(")
    problems = []
    for name, text in sources(tree):
        for number, line in enumerate(without_comments_and_strings(text).splitlines(), 1):
            for found in call.finditer(line):
                problems.append(f"{name}:{number}: {found[1]}() is banned; use {BANNED[found[1]]}")
    return problems


def check_packages(tree):
    listed = {}
    for line in (tree.root / "tools/packages").read_text().splitlines():
        found = re.match(r"([a-z0-9][\w.+-]*)\s+# ([^:]+): ([^;]+); (.+)", line)
        if found:
            listed[found[1]] = found.groups()[1:]
    section = re.search(r"^## Dependencies$.*?(?=^## )", (tree.root / "README.md").read_text(),
                        re.MULTILINE | re.DOTALL)[0]
    rows = re.findall(r"^\| ([a-z0-9][\w.+-]*) \| (.+?) \| (.+?) \| (.+?) \|$", section, re.MULTILINE)
    shown = {package: told for package, *told in rows}
    problems = [f"README.md: {name} is missing" for name in listed if name not in shown]
    problems += [f"tools/packages: README.md has {name}, which is not there"
                 for name in shown if name not in listed and name != "package"]
    for name in listed.keys() & shown.keys():
        if tuple(shown[name][:2]) != listed[name][:2]:
            problems.append(f"README.md: {name} is for {shown[name][0]}: {shown[name][1]}; "
                            f"tools/packages says {listed[name][0]}: {listed[name][1]}")
    return problems


def function_sizes(text):
    """(lines, name) of each function: from the line above its opening brace to the closing one."""
    start = name = None
    for number, line in enumerate(text.splitlines(), 1):
        found = re.match(r"[A-Za-z_(].*?(\w+)\)?\(", line)
        if found and not line.startswith(("typedef", "#", "struct {")):
            name = found[1]
        if line == "{":
            start = number
        elif line == "}" and start and name:
            yield number - start, name
            start = None


def check_sizes(tree):
    files, functions = [], []
    for name, text in sources(tree):
        files.append((len(text.splitlines()), name))
        functions += [(size, f"{name}: {function}()") for size, function in function_sizes(text)]
    sizes = sorted(size for size, _ in functions)
    print(f"{len(files)} files, {sum(size for size, _ in files)} lines, {len(functions)} functions; "
          f"median {sizes[len(sizes) // 2]} lines, 99 of 100 within {sizes[len(sizes) * 99 // 100]}")
    for title, items in (("functions", functions), ("files", files)):
        print(f"the longest {title}:")
        for size, name in sorted(items, reverse=True)[:8]:
            print(f"  {size:5} {name}")
    return []


def main():
    checks = {"order": check_order, "headers": check_headers, "contracts": check_contracts,
              "banned": check_banned, "packages": check_packages, "sizes": check_sizes}
    problems = checks[sys.argv[1]](Tree(sys.argv[2]))
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
