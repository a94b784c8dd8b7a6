"""What is shown, and how."""
import sys


TTY = sys.stdout.isatty()


def say(text=""):
    print(text, flush=True)


def heading(n, text):
    line = f"{n}. {text}"
    say(f"\n\033[1m{line}\033[0m" if TTY else f"\n{line}\n{'-' * len(line)}")


def show(text, limit=30):
    lines = text.rstrip("\n").splitlines()
    for line in lines[:limit]:
        say("   " + line)
    if len(lines) > limit:
        say(f"   ... {len(lines) - limit} more lines")


def progress(text, done=False):
    if TTY:
        print("\r\033[K   " + text, end="\n" if done else "", flush=True)
    elif done:
        say("   " + text)


def ms(seconds):
    return f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def size(n):
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000 or unit == "GB":
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000


class Failed(Exception):
    """The demo cannot go on."""
