"""Stands for systemd where there is none: `systemctl` and `systemd-run`, as the book uses them.

Called by either name. It knows the settings of deploy/countersignd.service that say how a process
is started and stopped; what hardens the unit beyond that is for `systemd-analyze verify`, which is
asked at `daemon-reload` where it is installed. Of its own environment it passes on SOFTHSM2_CONF,
as `systemctl edit` would have it.
"""
import os
import pathlib
import pwd
import grp
import shutil
import signal
import socket
import subprocess
import sys
import time

UNITS = pathlib.Path("/etc/systemd/system")
RUN = pathlib.Path("/run/countersign-service")
SKIPPED = ("--pipe", "--wait")


def settings(name):
    """The unit's settings; those that may stand more than once are lists."""
    found = {"LoadCredential": [], "StateDirectory": []}
    for line in (UNITS / f"{name}.service").read_text().splitlines():
        key, equals, value = line.partition("=")
        if not equals or key.startswith(("#", ";")):
            continue
        if key in found and isinstance(found[key], list):
            found[key] += value.split()
        else:
            found[key] = value
    return found


def credentials(name, entries, uid):
    """Copies credentials into a folder that the user alone can read."""
    folder = RUN / f"credentials-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for entry in entries:
        credential, _, source = entry.partition(":")
        shutil.copyfile(source, folder / credential)
        (folder / credential).chmod(0o400)
        os.chown(folder / credential, uid, uid)
    folder.chmod(0o500)
    os.chown(folder, uid, uid)
    return folder


def process(command, unit, name, **more):
    """A process as the unit wants it."""
    uid, gid = pwd.getpwnam(unit["User"]).pw_uid, grp.getgrnam(unit["Group"]).gr_gid
    environment = {key: os.environ[key] for key in ("PATH", "SOFTHSM2_CONF")}
    environment["CREDENTIALS_DIRECTORY"] = str(credentials(name, unit["LoadCredential"], uid))
    environment |= more.pop("env", {})
    return subprocess.Popen(
        command, user=uid, group=gid, extra_groups=[gid], umask=int(unit["UMask"], 8),
        cwd=unit.get("WorkingDirectory", "/"), env=environment, **more)


def start(name):
    unit = settings(name)
    uid, gid = pwd.getpwnam(unit["User"]).pw_uid, grp.getgrnam(unit["Group"]).gr_gid
    for folder in (pathlib.Path("/var/lib") / state for state in unit["StateDirectory"]):
        folder.mkdir(exist_ok=True)
        os.chown(folder, uid, gid)
        folder.chmod(int(unit["StateDirectoryMode"], 8))
    RUN.mkdir(exist_ok=True)
    log = (RUN / f"{name}.log").open("ab")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        address = RUN / "notify"
        address.unlink(missing_ok=True)
        notify.bind(str(address))
        address.chmod(0o666)
        env = {"NOTIFY_SOCKET": str(address)}
        child = process(unit["ExecStart"].split(), unit, name, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        (RUN / f"{name}.pid").write_text(str(child.pid))
        notify.settimeout(1)
        limit = time.monotonic() + int(unit["TimeoutStartSec"])
        while time.monotonic() < limit and child.poll() is None:
            try:
                if "READY=1" in notify.recv(4096).decode().split("\n"):
                    return
            except TimeoutError:
                pass
    sys.exit(f"{name} did not start: {(RUN / f'{name}.log').read_text()}")


def main_pid(name):
    """The process id of a running service; None when it is not there or only waits to be reaped."""
    pid = int((RUN / f"{name}.pid").read_text())
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0]
    except FileNotFoundError:
        return None
    return None if state == "Z" else pid


def stop(name):
    os.kill(main_pid(name), signal.SIGTERM)
    limit = time.monotonic() + int(settings(name)["TimeoutStopSec"])
    while main_pid(name) is not None:
        if time.monotonic() > limit:
            sys.exit(f"{name} did not stop in time")
        time.sleep(0.05)


def reload(name):
    command = settings(name)["ExecReload"].replace("$MAINPID", str(main_pid(name)))
    subprocess.run(command.split(), check=True)


def daemon_reload():
    units = sorted(UNITS.glob("countersign*.service"))
    if not units:
        sys.exit("no unit is installed")
    if shutil.which("systemd-analyze"):
        said = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
        if said.returncode != 0 or said.stderr:
            sys.exit(f"systemd-analyze: {said.stderr}")
    else:
        print("systemd-analyze is not installed: the unit was not verified")


def systemctl(arguments):
    match arguments:
        case ["daemon-reload"]:
            daemon_reload()
        case ["enable", "--now", name] | ["start", name]:
            start(name)
        case ["stop", name]:
            stop(name)
        case ["reload", name]:
            reload(name)
        case _:
            sys.exit(f"systemctl {arguments}: not known here")


def systemd_run(arguments):
    unit = {"LoadCredential": []}
    while arguments[0].startswith("-"):
        option, _, value = arguments.pop(0).partition("=")
        if option == "-p":
            option, _, value = arguments.pop(0).partition("=")
        if option == "LoadCredential":
            unit[option].append(value)
        elif option not in SKIPPED:
            unit[{"--uid": "User", "--gid": "Group"}.get(option, option)] = value
    sys.exit(process(arguments, unit, "transient").wait())


if __name__ == "__main__":
    {"systemctl": systemctl, "systemd-run": systemd_run}[pathlib.Path(sys.argv[0]).name](sys.argv[1:])
