"""The pages: server-rendered, working without scripts."""
