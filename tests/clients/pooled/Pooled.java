import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/**
 * Pushes again and again over pooled connections of java.net.http.
 *
 * <p>Arguments: the URL of the gateway, the number of pushers, the pushes of each, and the seconds between two.
 */
public class Pooled {
  public static void main(String[] args) throws Exception {
    String url = args[0];
    int pushers = Integer.parseInt(args[1]);
    int pushes = Integer.parseInt(args[2]);
    long interval = (long) (Double.parseDouble(args[3]) * 1000);
    HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    List<String> failures = Collections.synchronizedList(new ArrayList<>());
    List<Thread> threads = new ArrayList<>();
    for (int number = 0; number < pushers; number++) {
      URI uri = URI.create(url + "/metrics/job/java/pusher/" + number);
      Thread thread = new Thread(() -> {
        for (int round = 0; round < pushes; round++) {
          try {
            if (round > 0) {
              Thread.sleep(interval);
            }
            HttpRequest.BodyPublisher body = HttpRequest.BodyPublishers.ofString("pooled " + round + "\n");
            HttpRequest request = HttpRequest.newBuilder(uri).PUT(body).build();
            int status = client.send(request, HttpResponse.BodyHandlers.discarding()).statusCode();
            if (status != 200) {
              failures.add("status " + status);
            }
          } catch (Exception error) {
            failures.add(error.toString());
          }
        }
      });
      threads.add(thread);
      thread.start();
    }
    for (Thread thread : threads) {
      thread.join();
    }
    String first = failures.isEmpty() ? "" : failures.get(0);
    System.out.println("failed " + failures.size() + " of " + pushers * pushes + " " + first);
  }
}
