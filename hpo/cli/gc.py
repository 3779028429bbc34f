"""`hpo gc`: remove checkpoint files that nobody needs any more, on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from ..errors import SetupError
from .app import app, out, settings_of
from .files import counted, print_left, size_of
from .studies import AsJson

if TYPE_CHECKING:
    from workers.lease.cleanup import StudyReport


@app.command()
def gc(
    context: typer.Context,
    *,
    study: Annotated[str | None, typer.Option(help="Only files of this study.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    checkpoint_root: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of checkpoints, perhaps several times (default: that of the data directory)."),
    ] = None,
    forget: Annotated[
        list[UUID] | None,
        typer.Option(help="Also remove the files of a study that the service does not know, by its UUID."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Remove what nobody needs of the checkpoint files on this machine, and show what stays and why.

    What goes: partial files and logs of dead processes, what ended trials do not continue from, weights that the policy
    of a study gives up, and everything of deleted studies. Workers do the same every ten minutes. Logs of `hpo launch`
    go a week after its end, the tokens of `hpo launch slurm` with its jobs.
    """
    from workers.lease.cleanup import clean
    from workers.lease.client import ApiClient

    settings = settings_of(context)
    if settings.token is None:
        raise SetupError(f"there is no token in {settings.token_file}: give one with --token-file or HPO_TOKEN")
    roots = [root.expanduser().absolute() for root in checkpoint_root or [settings.checkpoint_dir]]
    found: list[StudyReport] = []
    proof, trusted = settings.proving_file, settings.ca_file
    with ApiClient(settings.api_url, settings.token, server_file=proof, ca_file=trusted) as client:
        for root in roots:
            try:
                for report in clean(root, client, study=study, forget=forget or (), dry_run=dry_run):
                    found.append(report)
                    if not as_json:
                        _print(report, dry_run=dry_run)
            except OSError as error:
                raise SetupError(f"{root} cannot be read ({error.strerror}): check --checkpoint-root") from error
    logs = 0 if study is not None else sum(_standby_logs(root, dry_run=dry_run) for root in roots)
    launches = 0 if study is not None else _launcher_logs(settings.home, dry_run=dry_run)
    tokens = 0 if study is not None else _slurm_tokens(settings.home, dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps([_document(report) for report in found]))
        return
    if launches:
        what = f"{counted(launches, 'log')} of launchers that ended a week ago"
        out.print(f"{'can go' if dry_run else 'removed'}: {what}")
    if tokens:
        what = f"{counted(tokens, 'token')} of Slurm's job arrays that have ended"
        out.print(f"{'can go' if dry_run else 'removed'}: {what}")
    _print_rest(roots, found, logs, study=study, dry_run=dry_run)


def _standby_logs(root: Path, *, dry_run: bool) -> int:
    """Remove logs of processes that died before they had a trial, and return how many there were."""
    from workers.checkpoints.standby_logs import abandoned_logs, remove_abandoned_logs

    return len(abandoned_logs(root)) if dry_run else remove_abandoned_logs(root)


def _launcher_logs(home: Path, *, dry_run: bool) -> int:
    """Remove logs of launchers that ended long ago, and return of how many."""
    from ..launch.logs import outlived_logs, remove_outlived_logs

    return len(outlived_logs(home)) if dry_run else remove_outlived_logs(home)


def _slurm_tokens(home: Path, *, dry_run: bool) -> int:
    """Remove the tokens of job arrays that have ended, and return of how many."""
    from ..launch.slurm_tokens import outlived_tokens, remove_outlived_tokens

    return len(outlived_tokens(home)) if dry_run else remove_outlived_tokens(home)


def _print_rest(roots: list[Path], found: list[StudyReport], logs: int, *, study: str | None, dry_run: bool) -> None:
    """Say what there is beside the files of studies."""
    from workers.checkpoints.stored import earlier_studies

    if not found:
        whose = f" of a study {study}" if study else ""
        out.print(f"there are no files{whose} in {', '.join(map(str, roots))}")
    if logs:
        out.print(f"{'can go' if dry_run else 'removed'}: {counted(logs, 'log')} of standby processes that died")
    for root in roots:
        if study is None and (earlier := earlier_studies(root)):
            folders = "a folder" if len(earlier) == 1 else f"{len(earlier)} folders"
            out.print(
                f"{root} also has {folders} of releases up to 0.2.0 ({', '.join(earlier)}). The name does not say "
                "which service it is of, so that you decide: look at docs/checkpoints.md, then `rm -r`"
            )


def _print(report: StudyReport, *, dry_run: bool) -> None:
    whose = f"study {report.name}" if report.name else f"an unknown study {report.study}"
    state = " (deleted)" if report.state == "deleted" else ""
    out.print(
        f"{whose}{state}: {size_of(report.found_bytes)} of {counted(report.trials, 'trial')} in {report.root}",
    )
    for reason, size in sorted(report.kept.items(), key=lambda one: -one[1]):
        out.print(f"  kept     {size_of(size):>8}  {reason}")
    for reason, size in sorted(report.going.items(), key=lambda one: -one[1]):
        out.print(f"  {'can go ' if dry_run else 'removed'}  {size_of(size):>8}  {reason}")
    if report.over_quota_bytes:
        out.print(f"  {size_of(report.over_quota_bytes)} more than the quota stays, since it is needed")
    if report.state == "unknown" and report.kept:
        out.print(f"  if it is of no other service: hpo gc --forget {report.study}")
    print_left(report.left)


def _document(report: StudyReport) -> dict[str, Any]:
    return {
        "study": report.name,
        "uuid": str(report.study),
        "state": report.state,
        "root": str(report.root),
        "trials": report.trials,
        "found_bytes": report.found_bytes,
        "kept": report.kept,
        "going": report.going,
        "files": report.files,
        "removed_bytes": report.removed_bytes,
        "over_quota_bytes": report.over_quota_bytes,
        "left": report.left,
    }
