"""build_app: the app as Ray Serve deploys it (`serve run serve.app:build_app model=embedded`)."""

# No `from __future__ import annotations`: Serve reads the type of build_app's argument to check it.

import os
from pathlib import Path
from typing import Any, cast

import ray
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from serve.auth import ApiKeys, check_access
from serve.autoscaling import ByWaitingTokens
from serve.endpoint import Endpoint
from serve.pinning import pinned
from serve.private_ray import CONTROLLER
from serve.routes import create_api
from serve.scorer import Scorer
from serve.settings import ServeArgs

KEYS_VARIABLE = "CROSSRAY_API_KEYS"
MANY_REQUESTS = 100_000
"""Serve's own queues never refuse anything: admission is ours, in tokens."""
GRACE_SECONDS = 60.0
"""Time in which a replica that is replaced may finish what it has accepted."""


def build_app(args: ServeArgs) -> Application:
    """The app: Endpoint and Scorer as deployments, the one with a handle to the other.

    Raises ConfigError for API keys that cannot be read, and for none where Serve listens beyond this machine;
    ModelError for a model that is not there, or a calibration of another one.
    """
    return app_behind(listening_host(), args)


def app_behind(host: str | None, args: ServeArgs) -> Application:
    """The app for a Serve that listens on `host`, which is None while it does not run; raises as `build_app` does."""
    keys = api_keys(args)
    if host is not None:
        check_access(host, keys, args.allow_anonymous)
    if args.api_keys_file is not None:  # endpoints read it themselves, and may run in another folder
        args = args.model_copy(update={"api_keys_file": str(Path(args.api_keys_file).absolute())})
        keys = None
    args, files, config = pinned(args)
    scorer = serve.deployment(
        name="Scorer",
        ray_actor_options={"num_cpus": args.num_cpus, "num_gpus": args.num_gpus},
        max_ongoing_requests=MANY_REQUESTS,
        max_queued_requests=-1,
        autoscaling_config=AutoscalingConfig(
            min_replicas=args.min_replicas,
            max_replicas=args.max_replicas,
            initial_replicas=args.min_replicas,
            upscale_delay_s=3,
            downscale_delay_s=60,
            metrics_interval_s=1,
            policy=AutoscalingPolicy(  # type: ignore[no-untyped-call]
                policy_function=ByWaitingTokens,
                policy_kwargs={
                    "seconds": args.max_wait_seconds / 2,
                    "tokens_per_replica": args.queued_tokens_per_replica,
                },
            ),
        ),
        graceful_shutdown_timeout_s=GRACE_SECONDS,
        health_check_period_s=5,
    )(Scorer)
    endpoint = serve.deployment(
        name="Endpoint",
        num_replicas=args.endpoints,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=MANY_REQUESTS,
        max_queued_requests=-1,
        graceful_shutdown_timeout_s=GRACE_SECONDS,
        health_check_period_s=5,
    )(serve.ingress(create_api(current_endpoint))(Endpoint))
    return endpoint.bind(args, keys, scorer.bind(config, files), files, config.calibration)


def current_endpoint() -> Endpoint:
    """The Endpoint of the process that the routes run in."""
    return cast(Endpoint, serve.get_replica_context().servable_object)  # Serve types it as a function


def listening_host() -> str | None:
    """Where Serve listens on the Ray that this process is part of; None while it does not run there."""
    if not ray.is_initialized():
        return None
    try:
        controller: Any = ray.get_actor(**CONTROLLER)
    except ValueError:
        return None
    return cast(str | None, ray.get(controller.get_http_config.remote()).host)  # Serve has no public way to ask


def api_keys(args: ServeArgs) -> ApiKeys | None:
    """The keys that are let in; None lets everybody in."""
    if args.api_keys_file is not None:
        return ApiKeys.from_file(Path(args.api_keys_file))
    value = os.environ.get(KEYS_VARIABLE)
    return ApiKeys.from_environment(value, KEYS_VARIABLE) if value else None
