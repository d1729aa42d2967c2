# Runs R cells for the interpreter server.
#
# File descriptor 0 is a socket: requests come in as two strings, changes of the environment and the code, each as its length
# in bytes (four, big-endian) and UTF-8. R cannot write to it: replies, lines of JSON, go out over a pipe on descriptor 4.

local({
  requests <- file("stdin", "rb")
  replies <- file("/dev/fd/4", "w", raw = TRUE)

  quoted <- function(text) {
    units <- utf8ToInt(enc2utf8(paste(text, collapse = "\n")))
    if (length(units) == 1 && is.na(units)) units <- utf8ToInt("?")
    escaped <- vapply(units, function(unit) {
      if (unit == 34L || unit == 92L) paste0("\\", intToUtf8(unit))
      else if (unit >= 32L && unit < 127L) intToUtf8(unit)
      else if (unit < 65536L) sprintf("\\u%04x", unit)
      else sprintf("\\u%04x\\u%04x", 55296L + (unit - 65536L) %/% 1024L, 56320L + (unit - 65536L) %% 1024L)
    }, "")
    paste0("\"", paste(escaped, collapse = ""), "\"")
  }

  reply <- function(message) {
    flush(stdout())
    writeLines(message, replies)
    flush(replies)
  }

  show <- function(value, main) {
    printed <- textConnection(NULL, "w", local = TRUE)
    sink(printed)
    tryCatch(print(value), finally = sink())
    text <- paste(textConnectionValue(printed), collapse = "\n")
    close(printed)
    reply(sprintf("{\"type\":\"result\",\"main\":%s,\"data\":{\"text/plain\":%s}}", tolower(main), quoted(text)))
  }

  fail <- function(name, value, trace = "") {
    reply(sprintf("{\"type\":\"error\",\"name\":%s,\"value\":%s,\"traceback\":%s}", quoted(name), quoted(value), quoted(trace)))
  }

  receive <- function() {
    size <- readBin(requests, "integer", size = 4, endian = "big")
    if (length(size) == 0) quit(save = "no", status = 0)
    readBin(requests, "raw", size)
  }

  # Variables are set apart by NUL characters; one without a value is removed.
  set_environment <- function(changes) {
    ends <- c(0L, which(changes == as.raw(0)))
    for (i in seq_len(length(ends) - 1L)) {
      entry <- rawToChar(changes[(ends[i] + 1L):(ends[i + 1L] - 1L)])
      at <- regexpr("=", entry, fixed = TRUE)
      value <- list(substring(entry, at + 1))
      names(value) <- substring(entry, 1, at - 1)
      if (at > 0) do.call(Sys.setenv, value) else Sys.unsetenv(entry)
    }
  }

  run <- function(code) {
    expressions <- tryCatch(parse(text = code, keep.source = FALSE), error = identity)
    if (inherits(expressions, "error")) return(fail("ParseError", conditionMessage(expressions)))
    for (i in seq_along(expressions)) {
      shown <- tryCatch(withVisible(eval(expressions[[i]], globalenv())), error = identity, interrupt = identity)
      if (inherits(shown, "interrupt")) return(fail("Interrupted", "the code was interrupted"))
      if (inherits(shown, "error")) {
        where <- paste(deparse(conditionCall(shown)), collapse = "\n")
        return(fail("Error", conditionMessage(shown), paste0("Error in ", where, ": ", conditionMessage(shown))))
      }
      if (shown$visible) show(shown$value, i == length(expressions))
    }
  }

  options(warn = 1)
  reply("{\"type\":\"ready\"}")
  repeat {
    environment <- receive()
    code <- rawToChar(receive())
    Encoding(code) <- "UTF-8"
    set_environment(environment)
    # One that comes between cells finds nothing to interrupt.
    tryCatch(run(code), interrupt = function(condition) fail("Interrupted", "the code was interrupted"))
    reply("{\"type\":\"done\"}")
  }
})
