import java.io.*;
import java.nio.charset.StandardCharsets;
import java.util.*;
import jdk.jshell.*;

/**
 * Runs Java cells for the interpreter server, in JShell.
 *
 * File descriptor 0 is a socket: requests come in as two strings, the names and values of system properties and the code,
 * each as its length in bytes (four, big-endian) and UTF-8; replies go out as lines of JSON. What the code prints goes to the
 * descriptors 1 and 2 as it is.
 */
public class Kernel {
    private static final OutputStream REPLIES = new FileOutputStream(FileDescriptor.in);
    private static volatile boolean running;
    private static volatile boolean interrupted;

    public static void main(String[] arguments) throws Exception {
        var requests = new DataInputStream(new BufferedInputStream(new FileInputStream(FileDescriptor.in)));
        System.setIn(InputStream.nullInputStream());
        // "local": cells run in this process, so that their output is this process's.
        try (var shell = JShell.builder().executionEngine("local").build()) {
            sun.misc.Signal.handle(new sun.misc.Signal("INT"), signal -> {
                if (running) {
                    interrupted = true;
                    shell.stop();
                }
            });
            for (var name : List.of("java.io.*", "java.math.*", "java.nio.file.*", "java.util.*", "java.util.concurrent.*",
                    "java.util.function.*", "java.util.stream.*")) {
                shell.eval("import " + name + ";");
            }
            reply("{\"type\":\"ready\"}");
            while (true) {
                var properties = read(requests);
                var code = read(requests);
                if (code == null) return;
                for (var line : properties.split("\0")) {
                    var at = line.indexOf('=');
                    if (at > 0) System.setProperty(line.substring(0, at), line.substring(at + 1));
                    else if (!line.isEmpty()) System.clearProperty(line);
                }
                interrupted = false;
                running = true;
                run(shell, code);
                running = false;
                reply("{\"type\":\"done\"}");
            }
        }
    }

    private static String read(DataInputStream requests) throws IOException {
        try {
            return new String(requests.readNBytes(requests.readInt()), StandardCharsets.UTF_8);
        } catch (EOFException end) {
            return null;
        }
    }

    private static void run(JShell shell, String code) throws IOException {
        String value = null;
        for (var rest = code; !rest.isBlank();) {
            var part = shell.sourceCodeAnalysis().analyzeCompletion(rest);
            if (!part.completeness().isComplete()) {
                fail("CompileError", "the code is not complete", rest);
                return;
            }
            var events = shell.eval(part.source());
            if (interrupted) {
                fail("Interrupted", "the code was interrupted", "");
                return;
            }
            for (var event : events) {
                if (!succeeded(shell, event)) return;
                if (event.causeSnippet() == null) value = shown(event);
            }
            rest = part.remaining();
        }
        if (value != null) {
            reply("{\"type\":\"result\",\"main\":true,\"data\":{\"text/plain\":" + quoted(value) + "}}");
        }
    }

    private static String shown(SnippetEvent event) {
        var kept = event.snippet().subKind() == Snippet.SubKind.TEMP_VAR_EXPRESSION_SUBKIND;
        var expression = kept || event.snippet().kind() == Snippet.Kind.EXPRESSION;
        return expression && event.value() != null && !event.value().isEmpty() ? event.value() : null;
    }

    private static boolean succeeded(JShell shell, SnippetEvent event) throws IOException {
        if (event.exception() instanceof EvalException thrown) {
            var name = thrown.getExceptionClassName();
            var trace = new StringBuilder(name).append(": ").append(thrown.getMessage());
            for (var frame : thrown.getStackTrace()) trace.append("\n\tat ").append(frame);
            fail(name.substring(name.lastIndexOf('.') + 1), String.valueOf(thrown.getMessage()), trace.toString());
            return false;
        }
        if (event.exception() != null) {
            fail(event.exception().getClass().getSimpleName(), String.valueOf(event.exception().getMessage()), "");
            return false;
        }
        if (event.status() == Snippet.Status.REJECTED) {
            var problems = new StringJoiner("\n");
            shell.diagnostics(event.snippet()).forEach(problem -> problems.add(problem.getMessage(Locale.ENGLISH)));
            fail("CompileError", problems.toString(), event.snippet().source());
            return false;
        }
        return true;
    }

    private static void fail(String name, String value, String trace) throws IOException {
        reply("{\"type\":\"error\",\"name\":" + quoted(name) + ",\"value\":" + quoted(value)
            + ",\"traceback\":" + quoted(trace) + "}");
    }

    private static void reply(String message) throws IOException {
        System.out.flush();
        System.err.flush();
        REPLIES.write((message + "\n").getBytes(StandardCharsets.UTF_8));
    }

    private static String quoted(String text) {
        var out = new StringBuilder("\"");
        for (var character : text.toCharArray()) {
            if (character == '"' || character == '\\') out.append('\\').append(character);
            else if (character < 0x20 || character > 0x7e) out.append(String.format("\\u%04x", (int) character));
            else out.append(character);
        }
        return out.append('"').toString();
    }
}
