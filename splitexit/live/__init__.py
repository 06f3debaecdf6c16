"""The live world: a device process and an edge process that answer the same steps with torch and gRPC.

wire      messages, the only file that knows the generated code of protos/splitexit/live/edge.proto
edge      what the edge does with a message, without gRPC;  server puts it on a port
device    drives `splitexit.inference` over a timeline;  client is its gRPC way to the edge
pair      both ends in one process and in virtual time, for comparing with the simulator
link      a TCP proxy that emulates a link between two real processes
rpc       measures what a call costs
"""
