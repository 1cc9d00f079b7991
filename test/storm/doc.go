// Package storm has many containers come and go at once, at random, on several
// networks, while plugins are killed, and holds throughout that nothing is given
// twice and nothing is lost. Each test has a network and a mount namespace of
// its own, in which /run and /var/lib are empty; it needs root and the built
// plugins. LIBNET_STORM=5m storms for that long with 500 attachments, 32 calls
// at once; without it a short storm passes. LIBNET_STORM_SEED repeats the
// choices of an earlier run, though not its timing.
package storm
