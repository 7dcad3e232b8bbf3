"""Makes the toy stages importable under the name that their entries give."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
