"""What a run cost in electricity and CO2, as CodeCarbon estimates it without a network."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stageproof.runtime.errors import InputError


class EnergyMeter:
    """Counts from when it is made until `stop`.

    country: ISO 3166 alpha-3 code of the country whose electricity is reckoned with; the world's mean for one that
        CodeCarbon does not know.

    Raises InputError when the package is missing.
    """

    def __init__(self, country: str) -> None:
        try:
            from codecarbon import OfflineEmissionsTracker
        except ImportError as error:
            raise InputError("--energy needs a package: pip install 'stageproof[energy]'.") from error
        self.country = country
        logging.getLogger("codecarbon").disabled = True  # it writes to stderr, which is ours, before any level holds
        with _its_warnings_ignored():
            self._tracker = OfflineEmissionsTracker(country_iso_code=country, save_to_file=False, log_level="critical")
            self._tracker.start()

    def stop(self) -> dict[str, Any] | None:
        """kWh, kg of CO2 equivalents and seconds since the meter was made, of this machine; JSON-ready.

        None when CodeCarbon failed, which it does in silence: a trained model is not thrown away for that.
        """
        with _its_warnings_ignored():
            kilograms = self._tracker.stop()
        found = getattr(self._tracker, "final_emissions_data", None)
        if found is None:
            return None
        return {
            "energy_kwh": float(found.energy_consumed),
            "co2_kg": float(kilograms or 0.0),
            "seconds": float(found.duration),
            "country": self.country,
            "estimated_by": f"codecarbon {found.codecarbon_version}",
        }


@contextmanager
def _its_warnings_ignored() -> Iterator[None]:
    """CodeCarbon swallows exceptions, and so loses its figures where warnings are made errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
