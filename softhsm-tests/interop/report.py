"""One line for each check, as every script of this folder prints it."""
import sys
import traceback

failed = False


def check(name, run):
    """Runs a check; what it returns (how much it looked at) stands behind its name."""
    global failed
    try:
        print(f"ok    {name}: {run()}", flush=True)
    except Exception as error:
        failed = True
        traceback.print_exc()
        print(f"FAIL  {name}: {type(error).__name__}: {error}", flush=True)


def refused(what, run, *errors):
    """That `run` fails with one of `errors`: a check that accepts everything shows nothing."""
    try:
        run()
    except errors:
        return
    raise AssertionError(f"accepted: {what}")


def must(holds, what):
    if not holds:
        raise AssertionError(what)


def finish():
    sys.exit(1 if failed else 0)
