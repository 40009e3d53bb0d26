"""Leases of a gate's clients, and the runs that pay for their questions. Pure: no clock."""

from __future__ import annotations

from dataclasses import dataclass

# A client that has not renewed its lease for this long is taken for dead, seconds.
CLIENT_LEASE = 15.0


@dataclass
class _Lease:
    run: str
    renewed: float


class Leases:
    """Leases by client."""

    def __init__(self) -> None:
        self._leases: dict[str, _Lease] = {}

    def __contains__(self, client: object) -> bool:
        return client in self._leases

    def __len__(self) -> int:
        return len(self._leases)

    def attach(self, client: str, run: str, now: float) -> None:
        """Grant a lease to a client, whose questions are paid for by a run."""
        self._leases[client] = _Lease(run, now)

    def renew(self, client: str, now: float) -> bool:
        """Renew a client's lease; False if the client has none any more."""
        if client in self._leases:
            self._leases[client].renewed = now
        return client in self._leases

    def detach(self, client: str) -> None:
        """End a client's lease; a client without a lease is ignored."""
        self._leases.pop(client, None)

    def expired(self, now: float) -> list[str]:
        """Clients that have not renewed their leases in time."""
        return [c for c, lease in self._leases.items() if now - lease.renewed > CLIENT_LEASE]

    def run_of(self, client: str) -> str | None:
        """The run that pays for a client; None if the client is not attached."""
        lease = self._leases.get(client)
        return None if lease is None else lease.run

    def has_run(self, run: str) -> bool:
        """True if any client of a run is attached."""
        return any(lease.run == run for lease in self._leases.values())
