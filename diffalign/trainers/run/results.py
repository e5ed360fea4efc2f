"""The end of a run: weights on a hub, report page, model card."""

from __future__ import annotations

from pathlib import Path

from diffalign.config import RunConfig
from diffalign.models import Adapter
from diffalign.report import write_card, write_report


def write_results(folder: Path, args: RunConfig, policy: Adapter) -> Path:
    """Write the report page and the model card; returns the page's path."""
    page = write_report(folder)
    _card(folder, args, policy)
    return page


def push(folder: Path, args: RunConfig, policy: Adapter, repo_id: str, *, private: bool) -> str:
    """Upload weights, configuration, card and report; returns the repository's address."""
    from huggingface_hub import HfApi

    _card(folder, args, policy, repo_id)
    api = HfApi()
    address = api.create_repo(repo_id, private=private, exist_ok=True)
    api.upload_folder(repo_id=repo_id, folder_path=str(folder), ignore_patterns=["checkpoint-*", ".*"])
    return str(address)


def _card(folder: Path, args: RunConfig, policy: Adapter, name: str | None = None) -> None:
    """The model card; its example calls the pipeline as the policy does."""
    call = {key: value for key, value in policy.call_arguments().items() if key != "guidance_scale"}
    write_card(folder, base_model=args.pretrained_model_name_or_path, name=name, call_kwargs=call)
