"""The bots.cfg that `skep init` and the first `skep serve` write."""

TEXT = """\
# bots.cfg: which bots there are, how they prove who they are, and what they serve.
#
# Save this file and the server takes it up within seconds. A file with a mistake is kept
# out, the server says what is wrong and where, and what was in force stays in force.
# docs/bots-cfg.md explains every field.

# Dimension keys that only this file may set; a bot is not believed about them.
trusted_dimensions: "pool"

# A group with neither bot_id nor bot_id_prefix is the default group: it takes every bot
# that no other group names.
bot_group {
  # A machine enrols once with a bootstrap token (`skep bootstrap new`) and proves itself
  # with its own secret from then on.
  auth { require_enrolled_secret: true }

  # Tasks that name no pool go here.
  dimensions: "pool:default"
}

# More groups may follow, for example:
#
# bot_group {
#   bot_id: "vm{1..10}"          # vm1 to vm10
#   bot_id_prefix: "build-"      # and every id that begins so
#   auth { require_enrolled_secret: true }
#   dimensions: "pool:ci"
#   dimensions: "zone:eu"
#   bot_config_script: "linux.py"  # hooks, in scripts/ beside this file
# }
"""
