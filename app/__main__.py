"""`python -m app COMMAND`: see app/cli.py."""

import sys

from app.errors import UserError, not_whole

if __name__ == "__main__":
    try:
        from app.cli import main
    except ImportError as error:
        print(not_whole(error), file=sys.stderr)
        sys.exit(UserError.exit_code)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(130)
    sys.exit(main())
