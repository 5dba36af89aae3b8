"""`python healthy.py PART`: whether a part of Airflow says that it is well, by the API server's word.

`airflow jobs check` would import all of Airflow at each look.
"""

import json
import os
import sys
from urllib.request import urlopen

HEALTH = os.environ.get("AIRFLOW_HEALTH_URL", "http://localhost:8081/api/v2/monitor/health")

with urlopen(HEALTH, timeout=5) as answer:  # noqa: S310 - the url is our own setting
    parts = json.load(answer)
status = parts.get(sys.argv[1], {}).get("status")
print(f"{sys.argv[1]}: {status}")
sys.exit(status != "healthy")
